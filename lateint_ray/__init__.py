"""lateint on Ray: indexes built by many workers, and shards that Ray places and restarts.

Needs Ray: ``pip install "lateint[ray]"``. docs/scale-out.md shows all of it on one machine.
"""

from lateint_ray.actors import ActorIndex
from lateint_ray.building import build
from lateint_ray.starting import start

__all__ = ["ActorIndex", "build", "start"]
