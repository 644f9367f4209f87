"""Tell people what has changed, once."""

import json
import logging
import os
import urllib.error
import urllib.request
from typing import Annotated, Any

from zenml import step

from loop.config import command, printable
from loop.registry import decisions
from loop.watching.policy import Decision

log = logging.getLogger(__name__)

SECRET, VARIABLE = "alert_webhook", "ALERT_WEBHOOK"
TIMEOUT_SECONDS = 10.0


@step(enable_cache=False)
def send_alert(decision: Decision, name: str) -> Annotated[dict[str, Any], "alert"]:
    """Send what was found to the stack's alerter or the webhook, and to the log; never fail the run for it.

    Nothing is sent while nothing changes: the same kinds of drift and the same action as in the entry before.
    """
    before = [e for e in decisions.history(name) if e.by == "monitoring" and e.number < decision.number]
    last = (before[-1].kinds, before[-1].action) if before else ((), "nothing")
    if (decision.kinds, decision.action) == last:
        return {"sent": "nothing: nothing has changed since the last alert"}
    alert = _alert(decision, name, before)
    log.warning("%s", alert["text"])
    return {**alert, "sent": _send(alert)}


def _alert(decision: Decision, name: str, before: list[Decision]) -> dict[str, Any]:
    """Name what, since when, how bad, the report and the next command."""
    since = decision.start or decision.time
    for entry in reversed(before):
        if not set(entry.kinds) & set(decision.kinds):
            break
        since = entry.start or entry.time
    model = f"{name}, version {decision.version}"
    if decision.alarms:
        found = " and ".join(alarm.title for alarm in decision.alarms)
        title = f"{model}: {found} since {since:%Y-%m-%d %H:%M} UTC"
    else:
        title = f"{model}: as it was, no alarm any more"
    if decision.action in ("retrain", "advise"):
        then = command("--pipeline feedback")
    else:
        then = command("--pipeline monitoring") if decision.alarms else "none"
    report = f"artifact window_report of run {decision.run}"
    lines = [title, *(f"{alarm.title}: {alarm.sentence}. What helps: {alarm.helps}" for alarm in decision.alarms)]
    if decision.action == "wait":
        lines.append(f"not retrained: {decision.against}")
    lines += [f"report: {report}", f"next: {then}"]
    return {
        "model": name,
        "version": decision.version,
        "kinds": list(decision.kinds),
        "since": f"{since:%Y-%m-%dT%H:%M:%SZ}",
        "action": decision.action,
        "report": report,
        "next": then,
        "text": "\n".join(map(printable, lines)),
    }


def _send(alert: dict[str, Any]) -> str:
    """Post to the stack's alerter, else to the webhook; say where it went or why it did not."""
    from zenml.client import Client

    alerter = Client().active_stack.alerter
    if alerter is not None:
        try:
            sent = alerter.post(alert["text"])
        except Exception as err:  # each alerter raises what its service's library raises
            log.warning("the alerter %s failed: %s", alerter.name, type(err).__name__)
            return f"not sent: alerter {alerter.name} raised {type(err).__name__}"
        return f"alerter {alerter.name}" if sent else f"not sent: alerter {alerter.name} refused"
    url = _webhook()
    if url is None:
        return f"to nobody, only on record: the stack has no alerter, and neither secret {SECRET} nor {VARIABLE} is set"
    body = json.dumps(alert).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310  (checked)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            return "webhook"
    except (OSError, ValueError) as err:  # the URL is a secret: its errors may quote it
        why = f"status {err.code}" if isinstance(err, urllib.error.HTTPError) else type(err).__name__
        log.warning("the webhook failed: %s", why)
        return f"not sent: the webhook failed ({why})"


def _webhook() -> str | None:
    """Return the URL from ZenML's secret, else from the environment."""
    from zenml.client import Client

    try:
        url = Client().get_secret(SECRET, allow_partial_name_match=False).secret_values.get("url")
    except KeyError:
        url = os.environ.get(VARIABLE)
    if url and not url.startswith(("http://", "https://")):
        log.warning("the webhook needs an http or https URL")
        return None
    return url or None
