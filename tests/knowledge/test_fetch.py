"""Pages fetched from a real local server; every address that is not the public internet's refused."""

import gzip
import ipaddress
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import Cancelled, TooLarge, UserError
from dbgpt_lite.knowledge.addresses import Address, is_foreign, is_public
from dbgpt_lite.knowledge.fetch import FetchLimits, checked_url, fetch
from dbgpt_lite.knowledge.loaders import load
from dbgpt_lite.knowledge.records import Upload

PUBLIC = "93.184.216.34"
PAGE = b"<title>Leave &amp; pay</title><h1>Leave</h1><p>Fifteen days.</p>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """A server on 127.0.0.1. answers: path -> what to do; requests: what was asked, with the Host header."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def gives(self, path: str, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in (HTML if headers is None else headers).items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer
        return self.url(path)

    def redirects(self, path: str, location: str, status: int = 302) -> str:
        return self.gives(path, b"x" * 10, {"Location": location}, status)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append((self.path, self.headers["Host"]))
            self.close_connection = True
            site.answers[self.path](self)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            # The reader has left, as some tests want.
            with suppress(ConnectionError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def local(address: Address) -> bool:
    """Lets the test's own server pass, and nothing else."""
    return str(address) == "127.0.0.1"


def nobody(host: str, port: int) -> list[str]:
    pytest.fail(f"{host} was asked for")


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., Upload]:
    def run(url: str, **options: object) -> Upload:
        limits = options.pop("limits", FetchLimits(max_bytes=1_000_000, max_seconds=20))
        cancel = options.pop("cancel", threading.Event())
        return fetch(url, tmp_path, limits, cancel, **{"allow": local, "resolve": nobody, **options})  # type: ignore[arg-type]

    return run


def key_of(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert caught.value.render("zh")
    return caught.value.key


# 127.0.0.1, 169.254.169.254 (where clouds answer with secrets), private and special ranges, in every way to write them.
HOSTILE = """
127.0.0.1 127.0.0.1. 127.1 127.0.1 127.000.000.001 0127.0.0.1 0177.0.0.1 0177.0.0.01 017700000001 2130706433 0x7f000001
0x7f.1 0x7f.0.0.1 0x7F.0x0.0x0.0x1 0X7F000001 127.255.255.254 127.0.0.1.0 1.2.3.4.5 256.1.1.1 127.0.0.09 127.0.0.0x1
00000177.1 0.0.0.0 0 0x0 00 0.0.0.1 10.0.0.1 10.255.255.255 10.1 012.0.0.1 0xa.1 167772161 172.16.0.1 172.31.255.255
192.168.0.1 192.168.1 3232235521 0xc0a80001 100.64.0.1 100.127.255.255 169.254.169.254 169.254.43518 2852039166
0xa9fea9fe 0251.0376.0251.0376 025177524776 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255 192.88.99.1
[::1] [::] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001]
[::127.0.0.1] [::7f00:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:0:127.0.0.1] [0:0:0:0:0:ffff:10.0.0.1]
[::ffff:a9fe:a9fe] [64:ff9b::127.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b::10.0.0.1] [64:ff9b:1::1] [2002:7f00:1::]
[2002:a9fe:a9fe::1] [2002:5db8:d822::1] [2001:0:7f00:1::1] [2001:db8::1] [2001:10::1] [fe80::1] [fe80::1%eth0]
[fe80::1%25eth0] [::1%25lo] [fc00::1] [fd00:ec2::254] [fec0::1] [ff02::1] [100::1] [5f00::1] [3fff::1] [4000::1]
[2600::5efe:7f00:1] [2600::200:5efe:10.0.0.1] localhost LOCALHOST localhost. localhost..
a.localhost Localhost.Localdomain
ip6-localhost printer.local metadata.google.internal metadata router.lan nas.home host.docker.internal intranet x.corp
gateway.home.arpa ① ①②⑦.⓪.⓪.① １２７.０.０.１ 127。0。0。1 127．0．0．1 127｡0｡0｡1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ ｌｏｃａｌｈｏｓｔ
127%2e0%2e0%2e1 %31%32%37.0.0.1 %6cocalhost 127.0.0.1%00.example.com 127.0.0.1%0a a..b.com .example.com -a.example.com
٠.٠.٠.٠ ١٢٧.٠.٠.١ 0x7f.0.0.0x 0x
""".split()


@pytest.mark.parametrize("host", HOSTILE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_hostile_hosts_are_refused_unasked(tmp_path: Path, scheme: str, host: str) -> None:
    """Neither a resolver nor a server hears of them; a resolver would even vouch for them."""
    asked: list[str] = []

    def vouches(name: str, port: int) -> list[str]:
        asked.append(name)
        return [PUBLIC]

    key = key_of(lambda: fetch(f"{scheme}://{host}/", tmp_path, FetchLimits(), threading.Event(), resolve=vouches))
    assert key in ("knowledge.url_private", "knowledge.url_invalid")
    assert asked == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("", "invalid"),
        ("example.com", "invalid"),
        ("//example.com", "invalid"),
        ("http://", "invalid"),
        ("http:///path", "invalid"),
        ("file:///etc/passwd", "invalid"),
        ("ftp://example.com/", "invalid"),
        ("gopher://example.com/", "invalid"),
        ("data:text/html,x", "invalid"),
        ("javascript:alert(1)", "invalid"),
        ("unix:///var/run/docker.sock", "invalid"),
        ("http://exam ple.com/", "invalid"),
        ("http://example.com\r\nHost: x/", "invalid"),
        ("http://example.com\\@127.0.0.1/", "invalid"),
        ("http:\\\\127.0.0.1/", "invalid"),
        ("http://example.com:99999999/", "port"),
        ("http://[::1/", "invalid"),
        ("http://[nonsense]/", "invalid"),
        ("http://example.com/" + "x" * 3000, "invalid"),
        ("http://user:secret@example.com/", "credentials"),
        ("http://user@example.com/", "credentials"),
        ("http://example.com@127.0.0.1/", "credentials"),
        ("http://example.com%2f@127.0.0.1/", "credentials"),
        ("http://example.com:22/", "port"),
        ("http://example.com:25/", "port"),
        ("http://example.com:0/", "port"),
        ("http://example.com:70000/", "port"),
    ],
)
def test_addresses_that_are_none_for_the_web(get: Callable[..., Upload], url: str, key: str) -> None:
    assert key_of(lambda: get(url)) == f"knowledge.url_{key}"


SPECIAL_V4 = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 224.0.0.0/3"


@st.composite
def addresses(draw: st.DrawFn) -> tuple[ipaddress.IPv4Address, str]:
    """An IPv4 address that is not global, and one of the ways to write it."""
    block = ipaddress.IPv4Network(draw(st.sampled_from(SPECIAL_V4.split())))
    number = int(block.network_address) + draw(st.integers(0, block.num_addresses - 1))
    address = ipaddress.IPv4Address(number)
    parts = str(address).split(".")
    digits = draw(st.sampled_from([str, hex, lambda part: f"0{int(part):o}", lambda part: f"{int(part):05d}"]))
    short = draw(st.integers(1, 4))
    tail = number & ((1 << (8 * (5 - short))) - 1)
    mixed = ".".join([*(digits(int(part)) for part in parts[: short - 1]), digits(tail)])
    wrapped = draw(
        st.sampled_from(
            ["::ffff:{}", "::{}", "64:ff9b::{}", "2002:{:x}:{:x}::", "::ffff:0:{}", "2600::5efe:{}", "fe80::{}"]
        )
    )
    six = wrapped.format(number >> 16, number & 0xFFFF) if ":x}" in wrapped else wrapped.format(address)
    return address, draw(st.sampled_from([mixed, f"{address}.", f"[{six}]", f"[{six}%25lo]", str(address)]))


@settings(max_examples=300, deadline=None)
@given(addresses())
def test_no_notation_of_a_private_address_passes(written: tuple[ipaddress.IPv4Address, str]) -> None:
    address, host = written
    assert not is_public(address)

    def vouches(name: str, port: int) -> list[str]:
        pytest.fail(f"{name} was taken for a name")

    key = key_of(lambda: fetch(f"http://{host}/", Path("nowhere"), FetchLimits(), threading.Event(), resolve=vouches))
    assert key in ("knowledge.url_private", "knowledge.url_invalid")


@settings(max_examples=300, deadline=None)
@given(st.ip_addresses())
def test_what_the_standard_library_calls_private_is_not_public(address: Address) -> None:
    translated = address in ipaddress.ip_network("64:ff9b::/96") if address.version == 6 else False
    if not translated and (not address.is_global or address.is_multicast or address.is_reserved):
        assert not is_public(address)


@settings(max_examples=100, deadline=None)
@given(st.ip_addresses(), st.booleans())
def test_an_answer_of_the_resolver_is_judged_whole(address: Address, first: bool) -> None:
    """One address that is not public spoils the public one beside it."""
    if is_public(address):
        return
    answers = [str(address), PUBLIC] if first else [PUBLIC, str(address)]
    key = key_of(
        lambda: fetch(
            "http://example.com/", Path("nowhere"), FetchLimits(), threading.Event(), resolve=lambda host, port: answers
        )
    )
    assert key == "knowledge.url_private"


def test_the_machines_own_address_is_not_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_public(ipaddress.ip_address("8.8.8.8"))
    assert is_public(ipaddress.ip_address("2606:4700::1111"))
    assert is_public(ipaddress.ip_address("64:ff9b::8.8.8.8"))
    assert is_foreign(ipaddress.ip_address("8.8.8.8"))
    monkeypatch.setattr("dbgpt_lite.knowledge.addresses.is_public", lambda address: True)
    assert not is_foreign(ipaddress.ip_address("127.0.0.1"))


def test_a_page(site: Site, get: Callable[..., Upload], tmp_path: Path) -> None:
    site.gives("/help/leave?x=1", PAGE)
    upload = get(site.url("/help/leave?x=1#part"))
    assert upload.name == "Leave & pay (127.0.0.1 help leave?x=1).html"
    assert upload.source == site.url("/help/leave?x=1")
    assert upload.path.parent == tmp_path
    assert load(upload.path, upload.name).sections[0].text == "Fifteen days."
    assert site.requests == [("/help/leave?x=1", f"127.0.0.1:{site.port}")]


@pytest.mark.parametrize(
    ("path", "headers", "body", "name"),
    [
        ("/a/report.pdf", {"Content-Type": "application/pdf"}, b"%PDF", "report.pdf"),
        ("/notes.md", {"Content-Type": "text/plain"}, b"# a", "notes.md"),
        ("/data.csv", {"Content-Type": "application/octet-stream"}, b"a,b", "data.csv"),
        ("/x", {"Content-Type": "text/csv; charset=utf-8"}, b"a,b", "x.csv"),
        ("/%E5%88%B6%E5%BA%A6.txt", {"Content-Type": "text/plain"}, b"a", "制度.txt"),
        ("/get", {"Content-Type": "application/pdf", "Content-Disposition": 'attachment; filename="a b.pdf"'}, b"%", "a b.pdf"),  # noqa: E501
        ("/get", {"Content-Type": "application/pdf",
                  "Content-Disposition": "attachment; filename=x.pdf; filename*=UTF-8''%E5%B9%B4.pdf"}, b"%", "年.pdf"),
        ("/get", {"Content-Type": "text/plain", "Content-Disposition": 'x; filename="../../etc/passwd"'}, b"a", "passwd.txt"),  # noqa: E501
        ("/get", {"Content-Type": "text/plain", "Content-Disposition": 'x; filename="..\\\\..\\\\boot.txt"'}, b"a", "boot.txt"),  # noqa: E501
        ("/%2e%2e%2f%2e%2e%2fx%00.txt", {"Content-Type": "text/plain"}, b"a", "x.txt"),
        ("/page.html", {"Content-Type": "text/html"}, b"<p>a", "127.0.0.1 page.html.html"),
        ("/", {"Content-Type": "text/html"}, b"<title>a/../b\x00</title>", "a∕..∕b (127.0.0.1).html"),
    ],
)  # fmt: skip
def test_names_and_types(
    site: Site, get: Callable[..., Upload], tmp_path: Path, path: str, headers: dict[str, str], body: bytes, name: str
) -> None:
    upload = get(site.gives(path, body, headers))
    assert upload.name == name
    assert [file.parent for file in tmp_path.rglob("*")] == [tmp_path]
    assert upload.path.read_bytes() == body


@pytest.mark.parametrize(
    ("charset", "body", "encoding"),
    [
        ("gb2312", "镕的年假".encode("gb18030"), "gb18030"),
        ("iso-8859-1", "年假".encode(), ""),
        ("utf-8", "年假".encode("gb18030"), ""),
        ("nonsense", b"a", ""),
        ("utf-7", b"+AGE-", ""),
    ],
)
def test_the_charset_of_the_header(
    site: Site, get: Callable[..., Upload], charset: str, body: bytes, encoding: str
) -> None:
    upload = get(site.gives("/a.txt", body, {"Content-Type": f'text/plain; charset="{charset}"'}))
    assert upload.encoding == encoding


@pytest.mark.parametrize("status", [404, 403, 401, 500, 204, 206, 304])
def test_other_answers_than_200(site: Site, get: Callable[..., Upload], status: int) -> None:
    url = site.gives("/", b"", HTML, status)
    assert key_of(lambda: get(url)) == "knowledge.url_status"


@pytest.mark.parametrize(
    "kind", ["image/png", "application/json", "video/mp4", "", "application/octet-stream", "text/html2"]
)
def test_types_that_cannot_be_read(site: Site, get: Callable[..., Upload], tmp_path: Path, kind: str) -> None:
    url = site.gives("/file.exe", b"MZ", {"Content-Type": kind} if kind else {})
    assert key_of(lambda: get(url)) == "knowledge.url_wrong_type"
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_followed_and_counted(site: Site, get: Callable[..., Upload]) -> None:
    site.gives("/end", PAGE)
    site.redirects("/1", "end", 301)
    site.redirects("/2", "/1", 303)
    for number in range(3, 8):
        site.redirects(f"/{number}", site.url(f"/{number - 1}"), 307)
    assert get(site.url("/5")).source == site.url("/end")
    assert key_of(lambda: get(site.url("/6"))) == "knowledge.url_redirects"
    site.redirects("/loop", "/loop")
    assert key_of(lambda: get(site.url("/loop"))) == "knowledge.url_redirects"


@pytest.mark.parametrize(
    ("location", "key"),
    [
        ("http://127.0.0.2/", "private"),
        ("http://169.254.169.254/latest/meta-data/", "private"),
        ("http://[::1]/", "private"),
        ("//localhost/", "private"),
        ("http://0x7f.1/", "private"),
        ("http://10.0.0.1:8080/", "private"),
        ("file:///etc/passwd", "invalid"),
        ("http://user:secret@example.com/", "credentials"),
        ("http://127.0.0.1:22/", "port"),
        ("http://\\127.0.0.1/", "private"),
    ],
)
def test_a_redirect_is_checked_like_an_address(site: Site, get: Callable[..., Upload], location: str, key: str) -> None:
    url = site.redirects("/", location)
    assert key_of(lambda: get(url)) == f"knowledge.url_{key}"
    assert len(site.requests) == 1


def test_a_name_is_resolved_once_and_its_checked_address_is_used(site: Site, get: Callable[..., Upload]) -> None:
    """DNS rebinding: the name says 127.0.0.1 (here the allowed one) while it is checked, and another address after."""
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1"]]
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    site.gives("/", PAGE)
    site.redirects("/again", "/")
    assert get(site.url("/", "docs.example.com"), resolve=rebinding).source == site.url("/", "docs.example.com")
    assert asked == ["docs.example.com"]
    assert site.requests == [("/", f"docs.example.com:{site.port}")]
    # The next connection asks again and is checked again.
    assert key_of(lambda: get(site.url("/", "docs.example.com"), resolve=rebinding)) == "knowledge.url_private"
    answers[2:] = [["127.0.0.1"], ["127.0.0.2"]]
    assert key_of(lambda: get(site.url("/again", "docs.example.com"), resolve=rebinding)) == "knowledge.url_private"
    assert [path for path, _ in site.requests] == ["/", "/again"]


def test_the_check_and_the_connection_take_the_same_name_apart(get: Callable[..., Upload]) -> None:
    asked: list[str] = []

    def record(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["10.0.0.1"]

    for url in ("http://ExAmple.com#@evil.com/", "http://example.com?@evil.com/", "http://example.com/@evil.com"):
        assert key_of(lambda url=url: get(url, resolve=record)) == "knowledge.url_private"  # type: ignore[misc]
    assert asked == ["example.com"] * 3
    assert checked_url(" https://例え.jp/路?a=b#c ").raw_host == b"xn--r8jz45g.jp"


def test_proxies_have_no_part(site: Site, get: Callable[..., Upload], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.2:9")
    assert get(site.gives("/", PAGE)).name.startswith("Leave")


@pytest.mark.parametrize("declared", [True, False])
def test_too_large(site: Site, get: Callable[..., Upload], tmp_path: Path, declared: bool) -> None:
    body = b"x" * 1_200_000
    headers = {**HTML, "Content-Length": str(len(body))} if declared else HTML
    url = site.gives("/", body, headers)
    with pytest.raises(TooLarge, match="1 MB"):
        get(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_packed_pages_and_bombs(site: Site, get: Callable[..., Upload], tmp_path: Path, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    headers = {**HTML, "Content-Encoding": coding}
    assert get(site.gives("/", pack(PAGE), headers)).path.read_bytes() == PAGE
    bomb = site.gives("/bomb", pack(b"\x00" * 300_000_000), headers)
    with pytest.raises(TooLarge):
        get(bomb)
    assert key_of(lambda: get(site.gives("/cut", pack(PAGE)[:-12], headers))) == "knowledge.url_damaged"
    assert key_of(lambda: get(site.gives("/junk", b"junk", headers))) == "knowledge.url_damaged"
    assert key_of(lambda: get(site.gives("/br", b"x", {**HTML, "Content-Encoding": "br"}))) == "knowledge.url_damaged"
    assert len(list(tmp_path.iterdir())) == 1


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then: no single read ever waits long."""
    for letter in b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + b"x-a: b\r\n" * 1000:
        handler.wfile.write(bytes([letter]))
        time.sleep(0.05)


def drip_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [drip, drip_body, lambda handler: time.sleep(3)])
def test_slow_servers_meet_the_time_limit(site: Site, get: Callable[..., Upload], answer: Answer) -> None:
    site.answers["/"] = answer
    limits = FetchLimits(max_seconds=0.6)
    assert key_of(lambda: get(site.url(), limits=limits)) == "knowledge.url_too_slow"


def test_a_resolver_that_never_answers_meets_the_time_limit(get: Callable[..., Upload]) -> None:
    wait = threading.Event()

    def silent(host: str, port: int) -> list[str]:
        wait.wait(20)
        return []

    url = "http://example.com/"
    assert key_of(lambda: get(url, limits=FetchLimits(max_seconds=0.3), resolve=silent)) == "knowledge.url_too_slow"
    wait.set()


def test_cancelling(site: Site, get: Callable[..., Upload], tmp_path: Path) -> None:
    cancel = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nx")
        cancel.set()
        time.sleep(1)

    site.answers["/"] = answer
    with pytest.raises(Cancelled):
        get(site.url(), cancel=cancel)
    assert list(tmp_path.iterdir()) == []


def failing(host: str, port: int) -> list[str]:
    raise socket.gaierror(-2, "Name or service not known")


def test_servers_that_are_not_there(get: Callable[..., Upload]) -> None:
    assert key_of(lambda: get("http://nowhere.example.com/", resolve=failing)) == "knowledge.url_not_found"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert key_of(lambda: get(f"http://127.0.0.1:{port}/")) == "knowledge.url_unreachable"


def test_what_is_no_web_server(site: Site, get: Callable[..., Upload]) -> None:
    site.answers["/"] = lambda handler: handler.wfile.write(b"220 mail.example.com ESMTP\r\n")
    site.answers["/none"] = lambda handler: None
    site.answers["/cut"] = lambda handler: handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 99\r\n\r\nshort"
    )
    for path in ("/", "/none", "/cut"):
        assert key_of(lambda path=path: get(site.url(path))) == "knowledge.url_unreachable"  # type: ignore[misc]
    assert key_of(lambda: get(site.gives("/empty", b""))) == "knowledge.url_empty"


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate with its key, for `name`."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


def test_certificates_are_checked_for_the_name_not_the_address(
    get: Callable[..., Upload], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path_factory.mktemp("tls"), "docs.example.com")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    names: list[str | None] = []
    tls.sni_callback = lambda connection, name, context: names.append(name)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with tls.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(4096)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE)
            except ssl.SSLError:
                continue
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()

    def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    with listener:
        assert key_of(lambda: get(f"https://docs.example.com:{port}/", resolve=here)) == "knowledge.url_certificate"
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert get(f"https://docs.example.com:{port}/", resolve=here).name.startswith("Leave")
        assert key_of(lambda: get(f"https://other.example.com:{port}/", resolve=here)) == "knowledge.url_certificate"
    assert names[-2:] == ["docs.example.com", "other.example.com"]
