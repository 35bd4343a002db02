"""What only a browser can tell: the built pages in a real, headless Chromium, from file://, with the network off.

`visit` opens one page at the width of a phone, tries everything on it, and returns what is wrong, by kind:
"mathematics", "sliders", "width", "console", "requests". All lists empty is a pass.
"""

import json
import shutil
import tempfile
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

PHONE = (390, 844)  # CSS pixels
# Two things that the theme does to every page and that harm nothing. It declares a name twice that no page uses. And
# its last version for Python 3.10 asks for its icon font early, in a way that file:// forbids, and then gets it as usual.
KNOWN = ("Identifier 'THEBE_JS_URL' has already been declared", "/fontawesome/6.5.2/webfonts/fa-")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync"
    # With the network off, no name resolves and no address answers.
    " --proxy-server=127.0.0.1:9 --proxy-bypass-list=<-loopback>"
)

# Folded parts are unfolded, so that what is in them is measured too. Then MathJax, if the page has it, gets ten seconds.
SETTLE = """
const done = arguments[0], start = Date.now();
document.querySelectorAll("details").forEach(d => d.open = true);
document.querySelectorAll(".toggle-hidden").forEach(e => e.classList.remove("toggle-hidden"));
const settle = () => document.fonts.ready.then(() => requestAnimationFrame(() => done()));
const wait = () => window.MathJax?.startup?.promise ? MathJax.startup.promise.then(settle)
  : Date.now() - start < 10000 ? setTimeout(wait, 50) : done();
document.querySelector("script[src*=mathjax]") ? wait() : settle();
"""

MATHEMATICS = r"""
const found = [];
for (const e of document.querySelectorAll(".math"))
  if (!e.querySelector("mjx-container")) found.push("a formula is not set: " + e.textContent.trim().slice(0, 60));
for (const e of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
  found.push("MathJax reports an error: " + (e.getAttribute("data-mjx-error") || e.textContent).slice(0, 60));
for (const e of document.querySelectorAll("mjx-assistive-mml mtext[mathcolor=red]"))
  found.push("MathJax does not know " + e.textContent);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());)
  if (!node.parentElement.closest("pre, code, script, style, noscript, textarea") && /\\[(\[]|\\begin\{|\$\$/.test(node.data))
    found.push("TeX is left in the page: " + node.data.trim().slice(0, 60));
const fonts = [...document.fonts].filter(f => f.family.includes("MJXTEX"));
if (fonts.some(f => f.status === "error")) found.push("a font of MathJax did not load");
if (document.querySelector("mjx-container") && !fonts.some(f => f.status === "loaded"))
  found.push("no font of MathJax was loaded");
return found;
"""

WIDTH = """
const limit = arguments[0], found = [], seen = new Set();
if (document.documentElement.scrollWidth > limit)
  found.push(`the page is ${document.documentElement.scrollWidth} pixels wide`);
const scrolls = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
  if (getComputedStyle(p).overflowX !== "visible") return true; return false; };
for (const e of document.querySelectorAll("article *")) {
  const right = e.getBoundingClientRect().right;
  if (right > limit + 1 && !e.closest("mjx-assistive-mml") && !scrolls(e) && !seen.has(e.parentElement))
    found.push(`<${e.tagName.toLowerCase()} class="${e.getAttribute("class") ?? ""}"> reaches to ${Math.round(right)} pixels`);
  if (right > limit + 1) seen.add(e);
}
return found;
"""

SLIDER = """
const box = arguments[0], image = box.querySelector("img"), range = box.querySelector("input[type=range]");
const output = box.querySelector("output");
return image.decode().catch(() => {}).then(() => [range.value, image.src, image.alt, output.textContent,
  range.getAttribute("aria-valuetext"), image.naturalWidth]);
"""


def find_browser():
    """The paths of a Chromium and its driver, or None."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def open_browser():
    """A headless Chromium without network, as wide as a phone, with a profile of its own. A context manager."""
    browser, driver = find_browser()
    options = Options()
    options.binary_location = browser
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="book-browser-", ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        chrome = webdriver.Chrome(options=options, service=Service(driver))
        try:
            width, height = PHONE
            screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            chrome.set_script_timeout(30)
            chrome.set_page_load_timeout(60)
            yield chrome
        finally:
            chrome.quit()


def visit(chrome, html, page):
    """Open a page of the built book in `html` and try everything on it. Returns a dict of lists of findings."""
    chrome.get_log("browser"), chrome.get_log("performance")  # what the page before has left
    chrome.get(page.resolve().as_uri())
    chrome.execute_async_script(SETTLE)
    findings = {
        "mathematics": chrome.execute_script(MATHEMATICS),
        "width": chrome.execute_script(WIDTH, PHONE[0]),
        "sliders": sliders(chrome),
        "console": console(chrome),
        "requests": requests(chrome, html),
    }
    name = page.relative_to(html)
    return {kind: [f"{name}: {finding}" for finding in found] for kind, found in findings.items()}


def sliders(chrome):
    """Move every slider of the page by mouse and by keyboard; the picture and its words must follow."""
    found = []
    for box in chrome.find_elements(By.CSS_SELECTOR, ".frames"):
        name = box.get_attribute("id")
        try:
            found += [f"{name}: {finding}" for finding in _slider(chrome, box)]
        except WebDriverException as error:
            found.append(f"{name}: it cannot be moved: {error.msg.splitlines()[0]}")
    return found


def _slider(chrome, box):
    handle = box.find_element(By.CSS_SELECTOR, "input[type=range]")
    if not handle.is_displayed():
        return ["the slider is not shown"]
    chrome.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", handle)
    rest = chrome.execute_script(SLIDER, box)
    # Click near the end that is farther away, then go back one step with the arrow key.
    to_the_right = int(rest[0]) < int(handle.get_attribute("max")) / 2
    reach = handle.size["width"] * 0.45
    ActionChains(chrome).move_to_element_with_offset(handle, reach if to_the_right else -reach, 0).click().perform()
    by_mouse = chrome.execute_script(SLIDER, box)
    chrome.execute_script("arguments[0].focus()", handle)
    ActionChains(chrome).send_keys(Keys.ARROW_LEFT if to_the_right else Keys.ARROW_RIGHT).perform()
    by_keyboard = chrome.execute_script(SLIDER, box)
    found = []
    for how, before, after in (("mouse", rest, by_mouse), ("keyboard", by_mouse, by_keyboard)):
        for what, old, new in zip(("value", "picture", "description", "text", "spoken text"), before, after):
            if old == new:
                found.append(f"the {how} does not change the {what}")
        if not after[5]:
            found.append(f"after the {how}, the picture cannot be shown")
    return found


def console(chrome):
    """Errors in the console, but for the ones that the theme is known to cause."""
    errors = [entry["message"] for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
    return [message for message in errors if not any(known in message for known in KNOWN)]


def requests(chrome, html):
    """What the page has fetched from outside the book's folder since it was opened."""
    found = []
    for entry in chrome.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] != "Network.requestWillBeSent":
            continue
        url = message["params"]["request"]["url"]
        parts = urlsplit(url)
        inside = parts.scheme == "file" and unquote(parts.path).startswith(f"{html.resolve()}/")
        if not inside and parts.scheme not in ("data", "blob", "about"):
            found.append(f"the page asked for {url[:100]}")
    return found
