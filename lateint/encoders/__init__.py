"""Encoders: what makes token embeddings of texts, one adapter for each library of models.

An encoder is any object with ``encode_query(texts)`` and ``encode_document(texts)``, each of which gives a list of
``[L, dim]``, one for each text. One that reads pictures is given pairs of a text and a picture as well. The adapters
import their library when one is made, never before::

    from lateint.encoders import PyLate

    index = Index.build(texts=passages, encoder=PyLate("lightonai/GTE-ModernColBERT-v1"))
    index.search("how do vaccines work?")
"""

from lateint.encoders.colpali import ColPali
from lateint.encoders.minilm import MiniLM
from lateint.encoders.onnx import Onnx
from lateint.encoders.protocol import Encoder, Places, adapted
from lateint.encoders.pylate import PyLate
from lateint.encoders.sentence_transformers import SentenceTransformer

__all__ = ["ColPali", "Encoder", "MiniLM", "Onnx", "Places", "PyLate", "SentenceTransformer", "adapted"]
