"""What an image tower is: plain data, no jax. Families read it from `config.json` (`hub_vision.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jaxserve.models.config import Activation, WeightFormat

Joint = Literal["mlp", "merger", "pool"]
"""How features become embeddings: two layers for each patch (LLaVA); a norm and two layers for each square of patches
(Qwen-VL); the mean of a square, a norm and a matrix (Gemma 3)."""


@dataclass(frozen=True)
class VisionSpec:
    """A vision transformer (Dosovitskiy et al. 2021) and its way into the decoder."""

    image_token: int
    """Placeholder of the prompt: one for each embedding."""
    patch: int
    """Side of a patch in pixels."""
    width: int
    """D: of the residual stream."""
    depth: int
    """Blocks that run."""
    num_heads: int
    inner: int
    """F: inner width of the feed-forward layers."""
    activation: Activation
    gated: bool
    """down(activation(gate(x)) * up(x)) instead of down(activation(up(x)))."""
    norm: Literal["layer", "rms"]
    norm_eps: float
    joint: Joint
    joint_width: int
    """Of the joint's hidden layer."""
    joint_activation: Activation = "gelu"
    joint_bias: bool = True
    joint_eps: float = 1e-6
    before: tuple[int, ...] = ()
    """Tokens that go before an image in a prompt."""
    after: tuple[int, ...] = ()
    """Tokens that go after it."""
    around: str = ""
    """Text that goes around all of these."""
    template_token: int | None = None
    """What chat templates write in place of it all, where that is not the placeholder."""
    whole: bool = False
    """The decoder reads an image in one piece: its tokens see each other, also those behind them."""
    frames: int = 1
    """Times an image is repeated as a video of itself; the patch projection sees all of them."""
    merge: int = 1
    """Side of the square of patches that become one embedding."""
    side: int | None = None
    """Patches along a side of an image where only one size is taken."""
    patch_bias: bool = False
    positions: Literal["none", "table", "interpolated"] = "none"
    """Learned position embeddings: none, of each place, or of a square that is stretched over the image."""
    positions_side: int = 0
    """Side of the learned square (interpolated)."""
    class_token: bool = False
    """A learned token takes part in attention."""
    keep_class: bool = False
    """Its feature becomes the first embedding."""
    first_norm: bool = False
    """A norm before the first block."""
    last_norm: bool = False
    """A norm after the last block."""
    rope_theta: float | None = None
    """Heads rotate by row and column."""
    window: int | None = None
    """Side in patches of the windows within which most blocks attend."""
    full_blocks: tuple[int, ...] = ()
    """Blocks that attend to the whole image nevertheless."""
    taps: tuple[int, ...] = ()
    """Blocks after which features are taken that join the decoder after its first layers (deepstack)."""
    axes: int = 0
    """Position axes of the decoder's rotation (3: time, row, column); 0 = positions count tokens."""
    weights: WeightFormat | None = None
    """How the projections' weights are held; None = in the model's dtype."""
    unquantised: tuple[str, ...] = ()
    """Projections that are held in the model's dtype nevertheless."""

    @property
    def head_dim(self) -> int:
        """H: dimensions of a head."""
        return self.width // self.num_heads

    @property
    def inputs(self) -> int:
        """Numbers of a patch: 3 channels, `frames`, `patch` rows and columns."""
        return 3 * self.frames * self.patch * self.patch

    @property
    def style(self) -> Literal["crop", "smart", "square"]:
        """How images are brought to a size: see `images.types.Style`."""
        if self.side is None:
            return "smart"
        return "square" if self.joint == "pool" else "crop"

    @property
    def block(self) -> int:
        """What padded numbers of patches must be a multiple of: those of a window, and of what is merged."""
        return max(self.window * self.window if self.window else 1, self.merge * self.merge)

    @property
    def extra_tokens(self) -> int:
        """Embeddings of an image beside those of its patches."""
        return int(self.class_token and self.keep_class)

    def embeddings(self, patches: int) -> int:
        """Embeddings of this many patches."""
        return patches // self.merge**2 + self.extra_tokens

    def attends_within_windows(self, block: int) -> bool:
        """Whether this block's attention is windowed."""
        return self.window is not None and block not in self.full_blocks
