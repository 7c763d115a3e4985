from __future__ import annotations

from reports.bibtex import bibtex


def test_an_entry_has_authors_title_venue_and_eprint() -> None:
    text = bibtex(["grill2020byol"])
    assert text.startswith("@inproceedings{grill2020byol,")
    assert r"Altch\'{e}, Florent" in text
    assert "title = {{Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning}}" in text
    assert "eprint = {2006.07733}" in text and "booktitle = {Advances in Neural Information Processing Systems}" in text


def test_each_key_appears_once_in_order() -> None:
    text = bibtex(["bardes2022vicreg", "grill2020byol", "bardes2022vicreg"])
    assert text.count("@inproceedings{bardes2022vicreg") == 1
    assert text.index("bardes2022vicreg") < text.index("grill2020byol")


def test_an_unknown_key_is_said_and_not_invented() -> None:
    assert bibtex(["nobody1999"]) == "% nobody1999: not in papers.csv\n"


def test_a_repository_is_a_misc_entry_with_its_address() -> None:
    text = bibtex(["sololearn_repository"])
    assert text.startswith("@misc{") and "url = {https://github.com/vturrisi/solo-learn}" in text
    assert "author" not in text
