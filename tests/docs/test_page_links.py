"""Every link from page to page leads somewhere, down to the heading."""

from urllib.parse import unquote, urlsplit

from tests.kit.pages import ROOT, Page, pages

PAGES = {page.path: page for page in pages()}


def broken(page: Page) -> list[str]:
    """What its relative links miss."""
    found = []
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        known = PAGES.get(target) if parts.path else page
        if known is None and not target.exists():
            found.append(f"{page.name}: {link}: there is no such file")
        elif ROOT not in [target, *target.parents]:
            found.append(f"{page.name}: {link}: it is outside of the repository")
        elif parts.fragment and known and unquote(parts.fragment) not in known.anchors:
            found.append(f"{page.name}: {link}: there is no such heading")
    return found


def test_links_lead_somewhere() -> None:
    assert not [line for page in PAGES.values() for line in broken(page)]


def test_what_is_broken_is_found() -> None:
    page = Page(ROOT / "docs/none.md")
    vars(page)["text"] = (
        "# One `two`, three\n[a](nowhere.md) [b](#one-two-three) [c](#four) `[d](x)`"
    )
    assert [line.split(": ")[1] for line in broken(page)] == ["nowhere.md", "#four"]


def test_the_index_names_every_page() -> None:
    index = Page(ROOT / "docs/README.md")
    linked = {(index.path.parent / urlsplit(link).path).resolve() for link in index.links}
    decisions = ROOT / "docs/adr"
    wanted = {path for path in PAGES if ROOT / "docs" in path.parents} - {index.path}
    missing = {path for path in wanted if path.parent != decisions} - linked
    assert not missing
    assert decisions / "README.md" in linked
    listed = {
        (decisions / urlsplit(link).path).resolve() for link in PAGES[decisions / "README.md"].links
    }
    assert {path for path in wanted if path.parent == decisions} - {
        decisions / "README.md"
    } <= listed
