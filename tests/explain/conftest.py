import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def words(monkeypatch):
    """All that stands on the figures that are written."""
    seen = []
    write = Figure.savefig

    def listen(self, *args, **kwargs):
        write(self, *args, **kwargs)  # draws, and so places the tick labels
        seen.extend(text.get_text() for text in self.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", listen)
    return seen
