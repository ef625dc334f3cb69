"""Errors of a client of OpenAI's protocol: which are about one request, and which would every further request meet?"""

import socket
import ssl

LASTING = (401, 402, 403, 404, 405, 406, 410, 411, 415, 426, 451, 501, 505)
"""The refusals of HTTP that every further request would meet."""
BAD_REQUESTS = (400, 422)
"""Those that may be about one item, or about what all requests share."""
PASSING = (408, 409, 429)
"""Those after which the same request may succeed, as after the server's own errors."""
# Codes of refusals that are about one item's words or picture, and of those that are about what all requests share.
ITEM_CODES = """
    content_filter content_policy_violation moderation_blocked image_content_policy_violation
    context_length_exceeded string_above_max_length invalid_prompt image_too_large image_too_small
    image_parse_error invalid_image invalid_image_format invalid_base64_image
"""
SHARED_CODES = """
    model_not_found unsupported_parameter unsupported_value unknown_parameter missing_required_parameter
    invalid_api_key insufficient_quota billing_hard_limit_reached billing_not_active account_deactivated
"""
OF_ITEM, OF_ALL = ITEM_CODES.split(), SHARED_CODES.split()
UNUSABLE = ("UnsupportedProtocol", "TooManyRedirects", "InvalidURL", "LocalProtocolError")
"""Errors of the HTTP client that are about the endpoint's URL."""


def lasts(error: Exception) -> bool:
    """Whether every further request would meet the same: a refused key, an unknown model or parameter, a host without a name."""
    status, code, parameter = (getattr(error, name, None) for name in ("status_code", "code", "param"))
    if code in OF_ITEM:
        return False
    shared = isinstance(parameter, str) and not parameter.startswith("messages")
    told = status in LASTING or code in OF_ALL or (status in BAD_REQUESTS and shared)
    return told or any(_is_of_host(cause) for cause in causes(error))


def in_doubt(error: Exception) -> bool:
    """Whether a request was called bad, be it on account of its item or of what it shares with all others."""
    return getattr(error, "status_code", None) in BAD_REQUESTS and getattr(error, "code", None) not in OF_ITEM


def passes(error: Exception) -> bool:
    """Whether the same request may succeed later; an error without a status is one of the connection."""
    status = getattr(error, "status_code", 500)
    return status in PASSING or status >= 500


def causes(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, and so on."""
    found, cause = [error], error.__cause__
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _is_of_host(cause: BaseException) -> bool:
    """No such name, no certificate to trust, no common protocol; not a connection that was refused or broke off."""
    broke_off = isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError))
    unusable = isinstance(cause, socket.gaierror) or type(cause).__name__ in UNUSABLE
    return unusable or (isinstance(cause, ssl.SSLError) and not broke_off)
