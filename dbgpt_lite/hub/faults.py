"""What a hub's refusals and a broken network mean, in words that say what to do."""

from typing import TYPE_CHECKING

from dbgpt_lite.errors import DbgptError, ModelError, NotFound, UserError

if TYPE_CHECKING:
    import httpx

# The hub's X-Error-Code header (https://github.com/huggingface/huggingface_hub, utils/_http.py).
_BY_CODE = {"GatedRepo": "gated", "RepoNotFound": "no_repository", "RevisionNotFound": "no_revision"}
_BY_STATUS = {403: "forbidden", 404: "no_repository", 407: "proxy", 416: "too_short", 451: "disabled"}
_PASSING = (408, 425, 429)


class Passing(DbgptError):
    """A fault that may be gone in a moment; `error` is what to say when it is not."""

    def __init__(self, error: UserError, wait_s: float = 0.0) -> None:
        super().__init__(error.key)
        self.error = error
        self.wait_s = wait_s


def check_status(response: "httpx.Response", name: str, revision: str, with_token: bool) -> None:
    """Raises UserError, or Passing, for an answer that is no success."""
    status, host = response.status_code, response.url.host
    if status < 400:
        return
    if status in _PASSING or status >= 500:
        key = "hub.too_many" if status == 429 else "hub.trouble"
        raise Passing(ModelError(key, host=host, status=status), _seconds(response.headers.get("retry-after", "")))
    code = _BY_CODE.get(response.headers.get("x-error-code", ""))
    if code is None and "is disabled" in response.headers.get("x-error-message", ""):
        code = "disabled"
    if code is None and status == 401:
        # A hub tells no stranger whether a repository is private or not there.
        code = "token_refused" if with_token else "no_repository"
    code = code or _BY_STATUS.get(status, "refused")
    error = NotFound if code in ("no_repository", "no_revision") else ModelError
    raise error(f"hub.{code}", name=name, revision=revision, host=host, status=status)


def network_fault(error: Exception, host: str) -> UserError | Passing:
    """What an exception of httpx means."""
    import httpx

    if isinstance(error, httpx.ProxyError):
        return ModelError("hub.proxy", host=host)
    if isinstance(error, httpx.ConnectError):
        # The ssl module's own words; httpx keeps no other mark of it.
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ModelError("hub.certificate", host=host)
        return Passing(ModelError("hub.no_network", host=host))
    if isinstance(error, httpx.TimeoutException | httpx.NetworkError | httpx.RemoteProtocolError):
        return Passing(ModelError("hub.broken_off", host=host))
    return ModelError("hub.bad_answer", host=host)


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), 60.0) if retry_after.isdigit() else 0.0
