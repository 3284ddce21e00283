import json

import pytest
from fakes import documents

from turnout.ext.snapshot import Snapshot


def test_a_document_is_taken_as_tables_or_as_json():
    document = documents.document()

    assert Snapshot(document).version == Snapshot(json.dumps(document).encode()).version == 1


def test_a_key_that_is_missing_or_unknown_is_named_with_its_place():
    document = documents.document()
    document["services"][0]["breaker"]["probe"] = 1

    with pytest.raises(ValueError, match=r"^services\[0\]\.breaker\.probe: is not known here$"):
        Snapshot(document)
