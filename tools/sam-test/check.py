"""Runs each function of the template in its container, against a private PostgreSQL, and checks what it answers.

    check.py BUILT_TEMPLATE ARCHITECTURE

First `sam local invoke` with the function's file in events/, then `sam local start-api` and curl. The functions and
routes are the template's: a new one needs its sample event, and an `expect_` function here where there is more to see
than that it succeeds.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from urllib.parse import urlsplit

from samtranslator.yaml_helper import yaml_parse

SAM = Path(sys.executable).with_name("sam")
# What the sample events name.
STREAM, MONTH, RUN = "42", "2026-05", "6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e"
DEMO_EVENTS = 10_000
# By this name containers reach this machine.
HOST_NAME = "host.docker.internal"
HOST_GATEWAY = f"{HOST_NAME}:host-gateway"
# These change what the others read.
FIRST = ["migrate", "run-maintenance", "trigger-maintenance"]

HISTORY = f"""
INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount, duration)
VALUES ('s42', '{STREAM}', 'tx-s42', 'GSENDER', 'GRECEIVER', '340282366920938463463', 100);
INSERT INTO "EventLog"
    (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", amount, "createdAt")
SELECT 'e42-' || i, 'withdraw', '{STREAM}', 'tx-e42', i, 1, '2024-01-10T00:00:00Z', i, '2024-01-10'
FROM generate_series(1, 5) i;
"""

# As if the first run had been that of the sample events, in their month.
BACKDATING = f"""
UPDATE "StreamSnapshot" SET "snapshotMonth" = '{MONTH}', "createdAt" = '{MONTH}-01 02:00' WHERE "streamId" = 's42';
UPDATE "MaintenanceRun" SET id = '{RUN}';
UPDATE "RunMonth" SET "runId" = '{RUN}';
"""


def address_for_containers(architecture):
    """The IPv4 address of this machine, as containers see it.

    A container is asked, for a daemon that has just made its network does not tell the gateway (`docker network inspect`).
    """
    image = f"public.ecr.aws/lambda/provided:al2023-{architecture}"
    hosts = output("docker", "run", "--rm", "--entrypoint", "cat", "--add-host", HOST_GATEWAY, image, "/etc/hosts")
    named = [fields[0] for fields in map(str.split, hosts.splitlines()) if HOST_NAME in fields[1:]]
    addresses = [address for address in named if ":" not in address]
    assert addresses, f"containers have no IPv4 address of this machine: {hosts}"
    return addresses[0]


class Database:
    """A private server, which is gone when this ends."""

    def __init__(self, stack, architecture):
        gateway = address_for_containers(architecture)
        serve = ["cargo", "run", "--quiet", "--package", "local-postgres", "--", gateway]
        server = subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(server.wait)
        stack.callback(server.stdin.close)
        self.url = server.stdout.readline().strip()
        assert self.url, "no PostgreSQL"
        address = urlsplit(self.url)
        in_container = address.netloc.replace(address.hostname, HOST_NAME)
        self.url_in_container = address._replace(netloc=in_container, query="sslmode=disable").geturl()

    def run(self, *arguments, **options):
        programs = os.pathsep.join([os.environ["PATH"], os.environ.get("PG_BIN", "")])
        psql = shutil.which("psql", path=programs) or "psql"
        environment = {**os.environ, "PGOPTIONS": "-c search_path=public,snapshot_service"}
        command = [psql, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url, *arguments]
        return output(*command, env=environment, **options)

    def value(self, sql):
        """What `sql` selects, as JSON."""
        return json.loads(self.run("-c", f"SELECT to_json(({sql}))"))

    def count(self, rows):
        return self.value(f"SELECT count(*) FROM {rows}")

    def fill(self):
        """The host's tables, made-up streams and events, and what the sample events ask for."""
        self.run("-f", "tools/snapshots/src/host-schema.sql")
        self.operate("demo-data", "--streams", "200", "--events", str(DEMO_EVENTS))
        self.run("-c", HISTORY)

    def operate(self, *arguments):
        """The operator's command on this database."""
        command = ["cargo", "run", "--quiet", "--package", "snapshots", "--", *arguments]
        return output(*command, env={**os.environ, "DATABASE_URL": self.url, "RUST_LOG": "warn"})


class Functions:
    """Those of the template, by their binaries' names."""

    def __init__(self, template, architecture, env_file):
        resources = yaml_parse(Path("template.yaml").read_text(encoding="utf-8"))["Resources"]
        self.ids, self.routes = {}, {}
        for logical_id, resource in resources.items():
            if resource["Type"] != "AWS::Serverless::Function":
                continue
            name = resource["Metadata"]["BuildProperties"]["Binary"]
            self.ids[name] = logical_id
            for event in resource["Properties"].get("Events", {}).values():
                if event["Type"] == "HttpApi":
                    self.routes[name] = f'{event["Properties"]["Method"]} {event["Properties"]["Path"]}'
        self.names = sorted(self.ids, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
        self.options = [
            "--template", template, "--parameter-overrides", f"Architecture={architecture}", "--env-vars", env_file,
            "--add-host", HOST_GATEWAY, "--skip-pull-image",
        ]

    def invoke(self, name):
        """What the function answers to its sample event: an HTTP function's body, else the payload."""
        command = [SAM, "local", "invoke", self.ids[name], "--event", event_file(name), *self.options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        assert done.returncode == 0 and lines, f"no answer: {done.stderr[-3000:]}"
        payload = json.loads(lines[-1])
        # The exit code is 0 all the same.
        assert isinstance(payload, dict) and "errorType" not in payload, f"{payload}\n{done.stderr[-3000:]}"
        if name not in self.routes:
            return payload
        assert payload["headers"]["content-type"] == "application/json", payload
        return envelope(payload["statusCode"], payload["body"])

    @contextlib.contextmanager
    def serve(self, log_file):
        """`sam local start-api`; gives the address."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with open(log_file, "w", encoding="utf-8") as log:
            server = subprocess.Popen(
                [SAM, "local", "start-api", "--port", str(port), *self.options], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            while True:
                assert server.poll() is None, f"start-api ended: {Path(log_file).read_text(encoding='utf-8')[-3000:]}"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def event_file(name):
    return f"events/{name}.json"


def sample_request(name):
    """Method, and path with query, of a function's sample event."""
    event = json.loads(Path(event_file(name)).read_text(encoding="utf-8"))
    query = f'?{event["rawQueryString"]}' if event["rawQueryString"] else ""
    return event["requestContext"]["http"]["method"], event["rawPath"] + query


def output(*command, **options):
    """What a program prints; its errors are shown."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options).stdout.strip()


def curl(method, url):
    """Status and body."""
    *body, status = output("curl", "-sS", "-X", method, "-w", "\n%{http_code}", url).splitlines()
    return int(status), "\n".join(body)


def envelope(status, body):
    answer = json.loads(body)
    assert status == 200 and answer["success"] is True and answer["data"] is not None, f"{status}: {body}"
    return answer


def equal(found, wanted):
    assert found == wanted, f"found {found}, wanted {wanted}"


def equal_months(answer, database, stream):
    months = f"""SELECT json_agg("snapshotMonth" ORDER BY "snapshotMonth" DESC) FROM "StreamSnapshot"
                 WHERE "streamId" = '{stream}'"""
    equal([snapshot["snapshotMonth"] for snapshot in answer["data"]], database.value(months))


def expect_migrate(database, report):
    """All of them, and what they make is there."""
    equal(len(report["applied"]), len(list(Path("migrations").iterdir())))
    equal(database.count('"StreamSnapshot"'), 0)


def expect_run_maintenance(database, run):
    """Every stream has its snapshot; every log is in one table, those that are due in the archive."""
    equal((run["complete"], run["status"], run["trigger"]), (True, "succeeded", "schedule"))
    equal(run["snapshotsCreated"], database.count('"Stream"'))
    equal(database.value('SELECT DISTINCT "snapshotMonth" FROM "StreamSnapshot"'), run["snapshotMonth"])
    equal(run["snapshotsCreated"], database.count('"StreamSnapshot"'))
    equal(run["logsArchived"], database.count('"StreamArchive"'))
    due = f""""createdAt" < '{run["cutoff"].rstrip("Z")}'"""
    equal(database.count(f'"EventLog" WHERE {due}'), 0)
    equal(database.count(f'"StreamArchive" WHERE NOT {due}'), 0)
    equal(database.count('"EventLog"') + run["logsArchived"], DEMO_EVENTS + 5)
    database.run("-c", BACKDATING)
    # Its exit code says whether the archive is what was archived.
    database.operate("verify")


def expect_trigger_maintenance(database, answer):
    run = answer["data"]
    equal((run["complete"], run["status"], run["trigger"]), (True, "succeeded", "api"))
    equal(run["streams"], database.count('"Stream"'))


def expect_list_snapshots(database, answer):
    equal_months(answer, database, "s42")


def expect_get_snapshot(_database, answer):
    snapshot = answer["data"]
    equal((snapshot["streamId"], snapshot["snapshotMonth"]), ("s42", MONTH))
    equal((snapshot["totalAmount"], snapshot["amountPerSecond"]), ("340282366920938463463", "3402823669209384634"))


def expect_list_archived_logs(_database, answer):
    equal([log["id"] for log in answer["data"]], [f"e42-{i}" for i in (5, 4, 3, 2, 1)])


def expect_list_stream_events(database, answer):
    expect_list_archived_logs(database, answer)
    equal({event["tier"] for event in answer["data"]}, {"archived"})


def expect_get_stream_state(_database, answer):
    equal((answer["data"]["snapshot"]["snapshotMonth"], answer["data"]["events"]), (MONTH, []))


def expect_get_verification(database, answer):
    archived = database.value(f"""SELECT sum("logsArchived")::bigint FROM "RunMonth" WHERE "runId" = '{RUN}'""")
    equal((answer["data"]["status"], answer["data"]["rowsDone"]), ("passed", archived))


def expect_list_maintenance_runs(database, answer):
    equal(len(answer["data"]), database.count('"MaintenanceRun"'))


def expect_get_maintenance_run(_database, answer):
    equal((answer["data"]["id"], answer["data"]["status"]), (RUN, "succeeded"))


def expect(name, database, answer):
    """What is known of the function's answer to its sample event."""
    expected = globals().get(f"expect_{name.replace('-', '_')}")
    if expected:
        expected(database, answer)


class Results:
    """Checks as the test runner reports them."""

    def __init__(self):
        self.passed, self.failed, self.start = 0, 0, time.monotonic()

    @contextlib.contextmanager
    def check(self, what):
        start = time.monotonic()
        try:
            yield
        except Exception:  # pylint: disable=broad-exception-caught
            self.failed += 1
            print(f"check {what} ... FAILED\n{traceback.format_exc()}", flush=True)
        else:
            self.passed += 1
            print(f"check {what} ... ok ({time.monotonic() - start:.1f} s)", flush=True)

    def report(self):
        verdict = "ok" if self.passed and not self.failed else "FAILED"
        seconds = time.monotonic() - self.start
        counts = f"{self.passed} passed; {self.failed} failed; 0 ignored"
        print(f"test result: {verdict}. {counts}; finished in {seconds:.0f}s")
        return 0 if verdict == "ok" else 1


def check_readme_calls(results, database, address):
    """The lines that `make run` prints, on a demo stream."""
    stream, own_id, amount = database.value(
        """SELECT json_build_array("streamId", id, amount) FROM "Stream"
           WHERE id <> 's42' AND "streamId" IN (SELECT "streamId" FROM "StreamArchive") ORDER BY id LIMIT 1"""
    )
    month = database.value('SELECT max("snapshotMonth") FROM "StreamSnapshot"')
    newest = f"""SELECT json_agg(id) FROM (SELECT id FROM "StreamArchive" WHERE "streamId" = '{stream}'
                                           ORDER BY "createdAt" DESC, id DESC LIMIT 2) newest"""
    api = f"{address}/api/v1/snapshots"
    with results.check("curl: a stream's snapshots"):
        equal_months(envelope(*curl("GET", f"{api}/{stream}")), database, own_id)
    with results.check("curl: one snapshot"):
        snapshot = envelope(*curl("GET", f"{api}/{stream}/{month}"))["data"]
        equal((snapshot["streamId"], snapshot["snapshotMonth"], snapshot["state"]["amount"]), (own_id, month, amount))
    with results.check("curl: archived logs"):
        logs = envelope(*curl("GET", f"{api}/{stream}/archive?limit=2"))["data"]
        equal([log["id"] for log in logs], database.value(newest))
    with results.check("curl: a month that is none"):
        status, body = curl("GET", f"{api}/{stream}/2026-13")
        equal((status, json.loads(body)["code"]), (400, "invalid_input"))


def remove_containers(template):
    """Those of this build that a killed SAM CLI left behind."""
    folder = str(Path(template).resolve().parent)
    containers = output("docker", "ps", "--all", "--quiet", "--filter", "label=sam.cli.container.type=lambda").split()
    for container in json.loads(output("docker", "inspect", *containers)) if containers else []:
        if any(mount["Source"].startswith(folder) for mount in container["Mounts"]):
            output("docker", "rm", "--force", container["Id"])


def main(template, architecture):
    # So that what is started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results = Results()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        database = Database(stack, architecture)
        stack.callback(remove_containers, template)
        database.fill()
        env_file = f"{scratch}/env.json"
        variables = {"Parameters": {"DATABASE_URL": database.url_in_container}}
        Path(env_file).write_text(json.dumps(variables), encoding="utf-8")
        functions = Functions(template, architecture, env_file)

        with results.check("each function has a sample event, of its route"):
            equal({path.stem for path in Path("events").iterdir()}, set(functions.ids))
            for name, route in functions.routes.items():
                equal(json.loads(Path(event_file(name)).read_text(encoding="utf-8"))["routeKey"], route)
        answers = {}
        for name in functions.names:
            with results.check(f"sam local invoke {functions.ids[name]}"):
                answers[name] = functions.invoke(name)
                expect(name, database, answers[name])

        with functions.serve(f"{scratch}/start-api.log") as address:
            # Those that read, then those that change something.
            for name in sorted(functions.routes, key=lambda name: (sample_request(name)[0] != "GET", name)):
                method, path = sample_request(name)
                with results.check(f"curl: {method} {path}"):
                    answer = envelope(*curl(method, address + path))
                    if method == "GET":
                        equal(answer, answers[name])
                    else:
                        expect(name, database, answer)
            check_readme_calls(results, database, address)
    return results.report()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
