"""Say whose pages in a browser may ask, and that it is this server that is asked for.

Where a token is asked for, it says who may ask, and a page of another site cannot send it unseen. Without one, on
loopback, any page that a browser of this machine shows could have predictions and write labels: by a form, which needs
no permission (CORS), or under a name of its own that suddenly means 127.0.0.1 (DNS rebinding). Programs that are no
browsers send neither `Origin` nor `Sec-Fetch-Site`, and an address or localhost as `Host`.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from loop.serving.schema import Refused
from loop.serving.values import shown

Headers = Mapping[bytes, bytes]

TAKEN = b"authorization, content-encoding, content-type"
HOSTS = 64  # that need not be looked at again
KEPT = b"600"  # seconds that a browser need not ask again
FIX = "list it in serving.origins, or set SERVING_TOKEN"


class Callers:
    """The origins that are listed, and whether anybody else's pages are kept out."""

    def __init__(self, origins: Sequence[str], *, guarded: bool) -> None:
        self.origins, self._guarded = frozenset(origin.encode() for origin in origins), guarded
        self._hosts = {urlsplit(origin).hostname for origin in origins}
        self._known = {b"localhost"}  # hosts that were looked at, and are this one

    def check(self, method: str, headers: Headers) -> None:
        """Refuse what a page may have sent that nobody listed; only where no token is asked for."""
        if not self._guarded:
            return
        host, origin = headers.get(b"host", b"localhost"), headers.get(b"origin")
        if host not in self._known:
            self._check_host(host)
        if origin in self.origins or (origin is None and b"sec-fetch-site" not in headers):
            return
        if origin is not None and origin.partition(b"://")[2] != host:
            raise Refused(403, f"pages of {shown(_text(origin))} may not ask this server; {FIX}")
        if headers.get(b"sec-fetch-site") == b"cross-site" and not _follows_a_link(method, headers):
            raise Refused(403, f"pages of other sites may not ask this server; {FIX}")

    def is_preflight(self, headers: Headers) -> bool:
        """Say whether a browser asks what a page may send; that of an origin that is not listed is refused."""
        if b"access-control-request-method" not in headers or b"origin" not in headers:
            return False
        if headers[b"origin"] not in self.origins:
            origin = shown(_text(headers[b"origin"]))
            raise Refused(403, f"pages of {origin} may not ask this server; list it in serving.origins")
        return True

    def told(self, headers: Headers, allowed: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers that tell a browser what the page that asked may see and send, where some are listed."""
        found, origin = [(b"vary", b"origin")], headers.get(b"origin")
        if origin in self.origins:
            found += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"retry-after")]
            if b"access-control-request-method" in headers:
                found += [
                    (b"access-control-allow-methods", allowed),
                    (b"access-control-allow-headers", TAKEN),
                    (b"access-control-max-age", KEPT),
                ]
        return found

    def _check_host(self, host: bytes) -> None:
        if not self._names_us(host):
            raise Refused(403, f"this server is not {shown(_text(host))}; {FIX}")
        if len(self._known) < HOSTS:
            self._known.add(host)

    def _names_us(self, host: bytes) -> bool:
        """Say whether a Host is an address, which no other site can have taken over, localhost, or a listed one."""
        try:
            name = (urlsplit(f"//{_text(host)}").hostname or "").removesuffix(".")
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            return bool(ip_address(name))
        except ValueError:
            return False


def _follows_a_link(method: str, headers: Headers) -> bool:
    """Say whether a person goes to this server: the page with the link does not see what is answered."""
    way = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    return method in ("GET", "HEAD") and way == (b"navigate", b"document")


def _text(value: bytes) -> str:
    return value.decode("latin-1")
