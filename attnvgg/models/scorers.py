"""How attention pools score instances: small networks that see one instance at a time."""

from typing import Literal

from torch import Tensor, nn

from attnvgg.errors import InputError

Init = Literal["default", "glorot"]


class TanhScorer(nn.Module):
    """Scores w^T tanh(V h) (Ilse et al., ICML 2018, equation 8), or gated (equation 9).

    With a gate they are w^T (tanh(V h) * sigmoid(U h)). No w has a bias: a softmax does not see it.

    Args:
        in_features: of an instance.
        width: rows of V and U.
        branches: how many w.
        gated: equation 9, else 8.
        bias: whether V and U have one.
        init: of V, U and w: PyTorch's, or Glorot's uniform one with biases 0.

    Raises:
        InputError: an unknown `init`.
    """

    def __init__(
        self, in_features: int, width: int, branches: int, gated: bool, bias: bool, init: Init
    ) -> None:
        super().__init__()
        self.gated = gated
        # V and U in one matrix: one multiplication reads the instances once.
        projections = 2 if gated else 1
        self.project = nn.Linear(in_features, projections * width, bias=bias)
        self.score = nn.Linear(width, branches, bias=False)
        if init not in ("default", "glorot"):
            raise InputError(f'init is "default" or "glorot", not "{init}".')
        if init == "glorot":
            for matrix in (*self.project.weight.detach().chunk(projections), self.score.weight):
                nn.init.xavier_uniform_(matrix)
            if bias:
                nn.init.zeros_(self.project.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Score instances (..., D), (..., M)."""
        hidden = self.project(values)  # (..., width), gated (..., 2 width)
        if not self.gated:
            return self.score(hidden.tanh())  # (..., M)
        content, gate = hidden.chunk(2, dim=-1)  # (..., width) each
        if hidden.requires_grad:
            return self.score(content.tanh() * gate.sigmoid())  # (..., M)
        # Nobody needs what is overwritten, and a large bag takes long to write elsewhere.
        return self.score(content.tanh_().mul_(gate.sigmoid_()))


class LeakyScorer(nn.Sequential):
    """Linear, LeakyReLU, linear to one score.

    Args:
        in_features: of an instance.
        width: of the hidden layer.
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__(
            nn.Linear(in_features, width),
            nn.LeakyReLU(inplace=True),
            nn.Linear(width, 1, bias=False),  # a softmax does not see a bias
        )


class MeanScorer(nn.Module):
    """The mean over the features of LeakyReLU(W2 LeakyReLU(W1 h)), one score.

    Args:
        in_features: of an instance.
        width: rows of W1 and of W2.
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(
            nn.Linear(in_features, width),
            nn.LeakyReLU(inplace=True),
            nn.Linear(width, width),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Score instances (..., D), (..., 1)."""
        return self.transform(values).mean(dim=-1, keepdim=True)
