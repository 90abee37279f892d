"""Everything that can go wrong on purpose. `jaxserve.api.errors` maps these to HTTP, `jaxserve.cli` to exit codes."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How the process ends, for systemd, Kubernetes and scripts."""

    FINE = 0
    """It was asked to end, and every request had ended."""
    CANNOT_SERVE = 2
    """The model, an option or the address can't be used: starting again changes nothing."""
    ENGINE_DIED = 3
    """The engine ended by itself while serving (the device is gone): start again."""
    REQUESTS_CUT = 4
    """It was asked to end, and requests that were still running had to be ended with an error."""
    HOST_LOST = 5
    """Another host of the group is lost or has failed: start them all again."""

    @property
    def faulty(self) -> bool:
        """Whether the process does not end because it was asked to: others then must not wait for its farewell."""
        return self in (ExitCode.CANNOT_SERVE, ExitCode.ENGINE_DIED, ExitCode.HOST_LOST)


class JaxserveError(Exception):
    """Base of all errors this package raises on purpose."""


class InvalidRequest(JaxserveError):
    """A request that can't be honoured. `field` names the request field that is at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class ContextLengthExceeded(InvalidRequest):
    """The prompt (plus `max_tokens`, where the caller asked for an error) does not fit the model's context."""


class TemplateError(InvalidRequest):
    """The model's chat template refused these messages; `message` quotes the template."""


class UnknownModel(InvalidRequest):
    """The request names a model this server does not serve."""


class Overloaded(JaxserveError):
    """The waiting queue is full; try again later."""


class EngineStopped(JaxserveError):
    """The engine has stopped, or died, while or before the request ran."""


class RequestFailed(JaxserveError):
    """This request alone failed while running (for example a bias that bans every token)."""


class RequestTimeout(RequestFailed):
    """The request took longer than it was allowed to."""


class SlowClient(RequestFailed):
    """The client did not read its answer, while more and more of it was there."""


class InternalError(JaxserveError):
    """A defect of this package ended the request; the log has the details."""


class DeviceLost(JaxserveError):
    """The device failed while it ran a program; what it held is gone, and the process must be started again."""


class HostLost(DeviceLost):
    """Another host that holds a part of the model is gone, silent, or has failed: so is what the devices hold."""


class ModelLoadError(JaxserveError):
    """The model directory can't be served; the message is one clear sentence (exit code 2)."""


def exit_code(error: BaseException) -> ExitCode:
    """How a process ends that ends of this."""
    if isinstance(error, HostLost):
        return ExitCode.HOST_LOST
    return ExitCode.CANNOT_SERVE if isinstance(error, ModelLoadError) else ExitCode.ENGINE_DIED
