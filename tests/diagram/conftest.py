"""A small diagram with joins, and its page in a browser."""

import pytest

from model.toys import Residual
from viscircuits.target import Target


@pytest.fixture
def drawn():
    from diagram.test_page import whole
    from viscircuits.diagram.extended import diagram

    return diagram(whole(Residual().ready(), Target("head", 1), Residual.shape), pictures="none")


@pytest.fixture
def page(drawn, visit, tmp_path):
    file = tmp_path / "circuit.html"
    file.write_text(drawn.html())
    return visit(file)
