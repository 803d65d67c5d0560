"""The Admin service of proto/admin.proto: each method is one of `Control`'s, for the user who calls."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from flight_replica._pb import admin_pb2 as pb
from flight_replica._pb import admin_pb2_grpc
from flight_replica.admin.gate import Gate, Stream
from flight_replica.admin.messages import (
    ended_query_message,
    pin_message,
    query_message,
    rebased_message,
    session_message,
    status_message,
    table_message,
)
from flight_replica.control.control import Control
from flight_replica.errors import InvalidStatement, Unavailable
from flight_replica.flightsql.auth import Login
from flight_replica.flightsql.users import User

DEFAULT_INTERVAL_SECONDS = 1.0


class AdminServicer(admin_pb2_grpc.AdminServicer):  # type: ignore[misc]
    """Thread-safe; holds nothing."""

    def __init__(self, control: Control, gate: Gate) -> None:
        self._control = control
        self._gate = gate

    def _status(self, user: User) -> pb.ServerStatus:
        control = self._control
        return status_message(control.server(), control.tables(user), control.queries(user))

    def Status(self, request: pb.StatusRequest, context: grpc.ServicerContext) -> pb.ServerStatus:
        return self._gate.answer(context, self._status)

    def WatchStatus(
        self, request: pb.WatchStatusRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ServerStatus]:
        def watch(login: Login, stream: Stream) -> Iterator[pb.ServerStatus]:
            seconds = self._interval(request.interval_seconds)
            yield self._status(login.user)
            while stream.wait(seconds):
                if not login.is_good():
                    raise Unavailable(f"user {login.user.name!r} was changed; try again")
                yield self._status(login.user)

        return self._gate.answers(context, watch)

    def _interval(self, seconds: float) -> float:
        limits = self._gate.limits
        seconds = seconds or DEFAULT_INTERVAL_SECONDS
        if not limits.interval_seconds_min <= seconds <= limits.interval_seconds_max:
            raise InvalidStatement(
                f"interval_seconds {seconds:g}: expected {limits.interval_seconds_min:g} to "
                f"{limits.interval_seconds_max:g}"
            )
        return seconds

    # --- tables -----------------------------------------------------------------------------------

    def AddTable(self, request: pb.AddTableRequest, context: grpc.ServicerContext) -> pb.AddTableResponse:
        def add(user: User) -> pb.AddTableResponse:
            self._control.add_table(user, request.table, dict(request.options))
            return pb.AddTableResponse()

        return self._gate.answer(context, add)

    def RemoveTable(self, request: pb.TableRequest, context: grpc.ServicerContext) -> pb.RemoveTableResponse:
        def remove(user: User) -> pb.RemoveTableResponse:
            self._control.remove_table(user, request.table)
            return pb.RemoveTableResponse()

        return self._gate.answer(context, remove)

    def PauseTable(self, request: pb.TableRequest, context: grpc.ServicerContext) -> pb.Table:
        return self._gate.answer(
            context, lambda user: table_message(self._control.pause(user, request.table))
        )

    def ResumeTable(self, request: pb.TableRequest, context: grpc.ServicerContext) -> pb.Table:
        return self._gate.answer(
            context, lambda user: table_message(self._control.resume(user, request.table))
        )

    def RebaseTable(self, request: pb.TableRequest, context: grpc.ServicerContext) -> pb.Rebased:
        return self._gate.answer(
            context, lambda user: rebased_message(self._control.rebase(user, request.table))
        )

    def CompactTable(self, request: pb.TableRequest, context: grpc.ServicerContext) -> pb.Rebased:
        return self._gate.answer(
            context, lambda user: rebased_message(self._control.compact(user, request.table))
        )

    # --- statements -------------------------------------------------------------------------------

    def ListQueries(
        self, request: pb.ListQueriesRequest, context: grpc.ServicerContext
    ) -> pb.ListQueriesResponse:
        return self._gate.answer(
            context,
            lambda user: pb.ListQueriesResponse(queries=map(query_message, self._control.queries(user))),
        )

    def ListSlowQueries(
        self, request: pb.ListSlowQueriesRequest, context: grpc.ServicerContext
    ) -> pb.ListSlowQueriesResponse:
        return self._gate.answer(
            context,
            lambda user: pb.ListSlowQueriesResponse(
                queries=map(ended_query_message, self._control.slow_queries(user)),
                slow_seconds=self._control.slow.slow_seconds,
            ),
        )

    def CancelQuery(self, request: pb.CancelQueryRequest, context: grpc.ServicerContext) -> pb.Query:
        return self._gate.answer(context, lambda user: query_message(self._control.cancel(user, request.id)))

    # --- sessions and pins ------------------------------------------------------------------------

    def ListSessions(
        self, request: pb.ListSessionsRequest, context: grpc.ServicerContext
    ) -> pb.ListSessionsResponse:
        return self._gate.answer(
            context,
            lambda user: pb.ListSessionsResponse(sessions=map(session_message, self._control.sessions(user))),
        )

    def EndSession(self, request: pb.EndSessionRequest, context: grpc.ServicerContext) -> pb.Session:
        return self._gate.answer(
            context, lambda user: session_message(self._control.end_session(user, request.id))
        )

    def ListPins(self, request: pb.ListPinsRequest, context: grpc.ServicerContext) -> pb.ListPinsResponse:
        return self._gate.answer(
            context, lambda user: pb.ListPinsResponse(pins=map(pin_message, self._control.pins(user)))
        )

    def ReleasePin(
        self, request: pb.ReleasePinRequest, context: grpc.ServicerContext
    ) -> pb.ReleasePinResponse:
        def release(user: User) -> pb.ReleasePinResponse:
            self._control.release_pin(user, request.user, request.name)
            return pb.ReleasePinResponse()

        return self._gate.answer(context, release)

    # --- the log ----------------------------------------------------------------------------------

    def GetLogLevel(self, request: pb.GetLogLevelRequest, context: grpc.ServicerContext) -> pb.LogLevel:
        return self._gate.answer(context, lambda user: pb.LogLevel(level=self._control.log_level(user)))

    def SetLogLevel(
        self, request: pb.SetLogLevelRequest, context: grpc.ServicerContext
    ) -> pb.SetLogLevelResponse:
        return self._gate.answer(
            context,
            lambda user: pb.SetLogLevelResponse(before=self._control.set_log_level(user, request.level)),
        )
