"""The core stands on permissive licences alone, and a change of that is noticed."""

from __future__ import annotations

import pytest

import licences


def test_all_that_the_core_needs_has_a_permissive_licence() -> None:
    core = licences.needed(licences.PROJECT["dependencies"])
    assert {"torch", "numpy", "sympy", "markupsafe"} <= set(core), "what packages need in turn counts"
    assert not licences.unfit(core)


@pytest.mark.parametrize(
    ("stated", "fine"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("Apache-2.0 AND (Apache-2.0 WITH LLVM-exception)", True),
        ("Python Software Foundation License", True),
        ("ISC License (ISCL)", True),
        ("unknown", False),
        ("", False),
        ("GPL-3.0-only", False),
        ("MIT AND LGPL-2.1-or-later", False),
        ("GNU Affero General Public License v3", False),
        ("Mozilla Public License 2.0 (MPL 2.0)", False),
        ("Other/Proprietary License", False),
    ],
)
def test_a_licence_is_permissive_if_all_of_its_parts_are(stated: str, fine: bool) -> None:
    assert licences.unfit({"some-package": stated}) == ([] if fine else ["some-package"])
