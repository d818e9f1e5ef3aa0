"""What is kept while pictures are worked through does not grow with what each batch makes."""

import weakref

import torch

from viscircuits.execution.response import Rows


def test_rows_keep_nothing_of_what_their_parts_are_views_of():
    rows, freed = Rows(6), []
    for start in (0, 2, 4):
        output = torch.full((2, 64, 8, 8), float(start))
        freed.append(weakref.ref(output))
        rows.add(output[:, 5].flatten(1))
        del output
    assert all(each() is None for each in freed)
    assert rows.tensor.untyped_storage().nbytes() == 6 * 64 * 4
    assert rows.tensor[:, 0].tolist() == [0, 0, 2, 2, 4, 4]
