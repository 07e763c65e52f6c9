"""What the server touches of the floors below the engine: questions, bytes, and the rule at the door."""

from treadle.blob.base import Blob, Upload
from treadle.blob.tree import Entry, Tree
from treadle.rules.admission import MAX_BATCH, Payload, payload, payloads
from treadle.store.base import Reader, Store

__all__ = ["MAX_BATCH", "Blob", "Entry", "Payload", "Reader", "Store", "Tree", "Upload", "payload", "payloads"]
