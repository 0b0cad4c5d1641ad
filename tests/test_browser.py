"""The browser the other tests drive: what it claims of itself must be true."""

import json
from pathlib import Path

import pytest

from tests.browser import open_browser
from tests.chromium import BrowserError

PAGE = """<!doctype html><meta charset=utf-8><title>One</title>
<input id=a><button id=b>Save</button><input id=f type=file>
<p id=seen></p>
<script>
const seen = document.querySelector("#seen");
document.addEventListener("keydown", e => {
  seen.textContent += `${e.ctrlKey ? "^" : ""}${e.key} `;
  if (e.ctrlKey) e.preventDefault();
});
document.querySelector("#b").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["saved"]));
  link.download = "one.txt";
  link.click();
};
</script>"""


async def test_keys_files_downloads_and_the_network_log_are_real(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGE)
    async with open_browser(tmp_path / "browser") as page:
        await page.set_window(500, 400, scheme="dark")
        await page.goto(path.as_uri())
        assert await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is True
        await page.press("Tab", "h", "?", "Shift+Tab", "Control+s", "ArrowDown")
        assert await page.evaluate("a.value") == "h?"
        assert await page.evaluate("seen.textContent") == "Tab h ? Tab ^s ArrowDown "

        await page.click("#b")
        saved = await page.next_download()
        assert (saved.name, saved.read_text()) == ("one.txt", "saved")

        await page.choose_files("#f", path)
        assert await page.evaluate("f.files[0].text()") == PAGE
        assert [url for url in page.requests if not url.startswith("blob:")] == [path.as_uri()]

        await page.screenshot(tmp_path / "shot.png")
        assert (tmp_path / "shot.png").read_bytes()[:4] == b"\x89PNG"
        assert page.errors == []


async def test_nothing_outside_is_reached_and_every_failure_is_told(tmp_path: Path) -> None:
    async with open_browser(tmp_path) as page:
        asked = "fetch('http://example.com/').then(() => 'reached', () => 'nobody there')"
        await page.evaluate("document.title = 'here'")
        assert await page.evaluate(asked) == "nobody there"
        assert "http://example.com/" in page.requests
        await page.evaluate("setTimeout(() => { throw new Error('late') })")
        await page.wait_for("true")
        assert any("late" in error for error in page.errors), page.errors
        with pytest.raises(BrowserError, match="broken"):
            await page.evaluate("(() => { throw new Error('broken') })()")
        with pytest.raises(BrowserError, match="not true in"):
            await page.wait_for("false", timeout_s=0.1)
        with pytest.raises(BrowserError, match="ERR_FILE_NOT_FOUND"):
            await page.goto((tmp_path / "absent.html").as_uri())
        assert json.dumps(await page.evaluate("[1, {a: null}]")) == '[1, {"a": null}]'
