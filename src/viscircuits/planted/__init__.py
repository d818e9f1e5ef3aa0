"""Networks built by hand whose circuits are known exactly, to measure how well a criterion finds them."""

from viscircuits.planted.cases import CASES as CASES
from viscircuits.planted.cases import Planted as Planted
from viscircuits.planted.recovery import Recovery as Recovery
from viscircuits.planted.recovery import recovery as recovery
