"""The plugin that Terraform starts: protocol 6 over gRPC, and what the framework leaves to be desired.

The framework plans without the configuration, so that an argument taken out would keep its value instead of going
back to its default, and applies without it, so that nothing could be write-only. It also ends calls in the middle
when somebody presses Ctrl-C, which loses what they were about to make.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import grpc
import msgpack
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tf import iface
from tf.gen import grpc_controller_pb2, grpc_controller_pb2_grpc, grpc_stdio_pb2_grpc, tfplugin_pb2_grpc
from tf.gen import tfplugin_pb2 as pb
from tf.provider import ProviderServicer
from tf.types import Unknown
from tf.utils import Diagnostics, read_dynamic_value, to_dynamic_value

from justiam_provider.arguments import State
from justiam_provider.entity import Entity
from justiam_provider.provider import ADDRESS, Provider

_COOKIE: Final = ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2")
_HANDSHAKE: Final = "1|6|unix|{socket}|grpc|{certificate}"
_CERTIFICATE_DAYS: Final = 30


class Servicer(ProviderServicer):
    """The framework's, with plans and changes that know the configuration."""

    def __init__(self, app: Provider) -> None:
        super().__init__(app)
        self._provider = app

    def ValidateProviderConfig(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Check the provider block."""
        _forget_refinements(request.config)
        return super().ValidateProviderConfig(request, context)

    def ValidateResourceConfig(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Check a resource."""
        _forget_refinements(request.config)
        return super().ValidateResourceConfig(request, context)

    def ValidateDataResourceConfig(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Check a data source."""
        _forget_refinements(request.config)
        return super().ValidateDataResourceConfig(request, context)

    def ConfigureProvider(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Connect."""
        _forget_refinements(request.config)
        return super().ConfigureProvider(request, context)

    def UpgradeResourceState(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Complete the state of an earlier version, which did not know every attribute."""
        del context
        stored = json.loads(request.raw_state.json)
        names = self._get_res_attrs(request.type_name)
        state = {name: stored.get(name) for name in names}
        return pb.UpgradeResourceState.Response(upgraded_state=to_dynamic_value(state))

    def ReadResource(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Say what there is. The framework would keep a set that is null where it is empty now."""
        del context
        diags = Diagnostics()
        entity = self._entity(request.type_name)
        entity.tag = request.private.decode()
        state = entity.read(iface.ReadContext(diags, request.type_name), read_dynamic_value(request.current_state))
        return pb.ReadResource.Response(
            new_state=to_dynamic_value(state), private=entity.tag.encode(), diagnostics=diags.to_pb()
        )

    def PlanResourceChange(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Say what will be, from the configuration and what there is."""
        del context
        _forget_refinements(request.config)
        entity = self._entity(request.type_name)
        prior: State | None = read_dynamic_value(request.prior_state)
        plan = entity.planned(read_dynamic_value(request.config), prior)
        replacing = entity.replacing(plan, prior) if prior else []
        return pb.PlanResourceChange.Response(
            planned_state=to_dynamic_value(plan),
            planned_private=request.prior_private,
            requires_replace=[
                pb.AttributePath(steps=[pb.AttributePath.Step(attribute_name=name)]) for name in replacing
            ],
        )

    def ApplyResourceChange(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Make, change or delete."""
        del context
        for value in (request.config, request.planned_state):
            _forget_refinements(value)
        diags = Diagnostics()
        entity = self._entity(request.type_name)
        prior: State | None = read_dynamic_value(request.prior_state)
        planned: State | None = read_dynamic_value(request.planned_state)
        entity.config = read_dynamic_value(request.config) or {}
        entity.tag = request.planned_private.decode()
        name = request.type_name
        state: State | None
        if planned is None:
            state = entity.delete(iface.DeleteContext(diags, name), prior or {})
        elif prior is None:
            state = entity.create(iface.CreateContext(diags, name), planned)
        else:
            state = entity.update(iface.UpdateContext(diags, name), prior, planned)
        return pb.ApplyResourceChange.Response(
            new_state=to_dynamic_value(state), private=entity.tag.encode(), diagnostics=diags.to_pb()
        )

    def StopProvider(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Somebody pressed Ctrl-C: finish what is under way, and repeat nothing."""
        del request, context
        self._provider.stop()
        return pb.StopProvider.Response()

    def _entity(self, type_name: str) -> Entity:
        return cast("Entity", self.app.new_resource(self._get_res_cls(type_name)))


def _forget_refinements(value: Any) -> None:  # noqa: ANN401 - a generated message
    """Make every unknown value of a message the one that the framework knows.

    Terraform says of some what it knows all the same, such as how a text begins: extension 12 of the wire format. It
    is free to be ignored.
    """
    if value.msgpack:
        read = msgpack.unpackb(value.msgpack, ext_hook=lambda _code, _data: Unknown)
        value.CopyFrom(to_dynamic_value(read))


class _Controller(grpc_controller_pb2_grpc.GRPCControllerServicer):
    def __init__(self) -> None:
        self.ended = threading.Event()

    def Shutdown(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """End: nothing is under way any more."""
        del request, context
        self.ended.set()
        return grpc_controller_pb2.Empty()


class _Stdio(grpc_stdio_pb2_grpc.GRPCStdioServicer):
    def StreamStdio(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the protocol's
        """Nothing is written but to the streams themselves."""
        del request, context
        return iter(())


def _server() -> tuple[grpc.Server, _Controller]:
    server = grpc.server(ThreadPoolExecutor(max_workers=10))
    controller = _Controller()
    tfplugin_pb2_grpc.add_ProviderServicer_to_server(Servicer(Provider()), server)
    grpc_controller_pb2_grpc.add_GRPCControllerServicer_to_server(controller, server)
    grpc_stdio_pb2_grpc.add_GRPCStdioServicer_to_server(_Stdio(), server)
    return server, controller


def debug() -> None:
    """Answer the calls of every Terraform that has what is printed in TF_REATTACH_PROVIDERS, until stopped."""
    server, _ = _server()
    with tempfile.TemporaryDirectory(prefix="justiam-") as directory:
        socket = f"{directory}/provider"
        server.add_insecure_port(f"unix://{socket}")
        server.start()
        here = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True}
        reattach = {ADDRESS: {**here, "Addr": {"Network": "unix", "String": socket}}}
        print(json.dumps(reattach), flush=True)  # noqa: T201 - what it is started for
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        server.stop(grace=1).wait()


def serve() -> None:
    """Answer Terraform's calls until it says that it is done."""
    server, controller = _server()
    certificate, credentials = _credentials()
    # Nobody else can enter the directory, so that Terraform need not show a certificate of its own.
    with tempfile.TemporaryDirectory(prefix="justiam-") as directory:
        socket = f"{directory}/provider"
        server.add_secure_port(f"unix://{socket}", credentials)
        server.start()
        encoded = base64.b64encode(certificate).decode().rstrip("=")
        print(_HANDSHAKE.format(socket=socket, certificate=encoded), flush=True)  # noqa: T201 - the handshake
        controller.ended.wait()
        server.stop(grace=1).wait()


def _credentials() -> tuple[bytes, grpc.ServerCredentials]:
    """A certificate for this process alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    credentials = grpc.ssl_server_credentials([(private, public)])
    return certificate.public_bytes(serialization.Encoding.DER), credentials


def main() -> None:
    """Run as Terraform runs a plugin; say so to anybody else."""
    if sys.argv[1:] == ["--debug"]:
        # Before any thread is there, so that the signals reach nothing else.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        debug()
        return
    name, value = _COOKIE
    if os.environ.get(name) != value:
        sys.exit("This is a plugin: Terraform starts it. See docs/terraform for how it is installed.")
    # Ctrl-C reaches the whole process group. Terraform tells its plugins what to do, and waits for what is under way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve()
