"""What the model reads: pytrees made on the host. All that depends on the size of an image is an array in here."""

from flax import struct
from jaxtyping import Array as Jax
from jaxtyping import Bool, Float32, Int32
from numpy import ndarray as Numpy

from qwen3vl_jax.checks import require_range, require_shape

Array = Jax | Numpy


@struct.dataclass
class Images:
    """Images as rows of patches, padded to the largest; patches run in 2x2 merge blocks, as in transformers.

    A video is several of them, one per temporal patch: no temporal patch sees another one in the vision tower.

    Attributes:
      patches: normalised pixels, (channel, frame, row, col) flattened.
      valid: False at padding.
      pos_index, pos_weight: the four taps of each patch into the learned position table, and their bilinear weights.
      row_col: patch coordinates, for the rotary angles.
      groups: into how many equal parts images and prompts fall, such that prompts show images of their own part only; then
        parts can lie on different devices. `Prompt.image_cell` may count from 0 in each part or go on from part to part.
    """

    patches: Float32[Array, "image patch pixel"]
    valid: Bool[Array, "image patch"]
    pos_index: Int32[Array, "image patch 4"]
    pos_weight: Float32[Array, "image patch 4"]
    row_col: Int32[Array, "image patch 2"]
    groups: int = struct.field(pytree_node=False, default=1)


@struct.dataclass
class Prompt:
    """A batch of token rows, left-padded to one length.

    Attributes:
      tokens: vocabulary ids; 0 at padding.
      positions: M-RoPE (time, row, column); 0 at padding.
      valid: False at padding.
      image_cell: at image and video placeholders, which row of the encoded vision tokens stands there (image number x cells per
        padded image + raster cell); -1 elsewhere. None for text alone.
    """

    tokens: Int32[Array, "batch seq"]
    positions: Int32[Array, "batch seq 3"]
    valid: Bool[Array, "batch seq"]
    image_cell: Int32[Array, "batch seq"] | None = None

    def check(self, vocabulary: int) -> tuple[int, int]:
        """Returns how many rows there are and how long they are.

        Raises InputError unless the fields fit each other, and for tokens that a vocabulary of this size lacks where they are
        known: an embedding would give NaN for them.
        """
        require_shape("prompt.tokens", self.tokens, dict(batch=None, seq=None))
        batch, seq = self.tokens.shape
        require_shape("prompt.positions", self.positions, dict(batch=batch, seq=seq, axis=3))
        require_shape("prompt.valid", self.valid, dict(batch=batch, seq=seq))
        if self.image_cell is not None:
            require_shape("prompt.image_cell", self.image_cell, dict(batch=batch, seq=seq))
        hint = "the tokenizer and the weights belong to different models"
        require_range("prompt.tokens", self.tokens, 0, vocabulary, hint)
        return batch, seq
