"""A text collection in BEIR's layout, by the name under which users import it: see `lateint.quality.collection`."""

from lateint.quality.collection import Collection

__all__ = ["Collection"]
