"""A client of the orchestrator's API as the original's Ruby client and Bolt are: TLS 1.2, HTTP/1.1 on
one connection that is kept, the same calls in the same order, and the same readings of the answers.

usage: orchestrator_client.py URL CA_FILE TOKEN NODE...     Exits 0 when everything was as it must be.
"""

import http.client
import json
import ssl
import sys
import time
import urllib.parse


class ApiError(Exception):
    """An answer that is not a success: what the caller decides by is the kind."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status, self.kind, self.msg = status, body["kind"], body["msg"]
        assert isinstance(body["details"], object) and self.msg, body


class Client:
    def __init__(self, url, ca_file, token):
        parts = urllib.parse.urlsplit(url)
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.http = http.client.HTTPSConnection(
            parts.hostname, parts.port, context=context, timeout=60
        )
        self.http.connect()
        assert self.http.sock.version() == "TLSv1.2"
        self.socket = self.http.sock
        self.root = url.rstrip("/") + "/orchestrator/v1/"
        self.headers = {
            "Content-Type": "application/json",
            "X-Authentication": token,
            "User-Agent": "OrchestratorRubyClient/0.7.2",
        }

    def call(self, method, path, good, body=None):
        body = None if body is None else json.dumps(body)
        self.http.request(method, "/orchestrator/v1/" + path, body, self.headers)
        answer = self.http.getresponse()
        text = answer.read()
        assert answer.version == 11, "not HTTP/1.1"
        assert self.http.sock is self.socket, "the connection was not kept"
        value = json.loads(text)  # also of errors: anything else is a BadResponse
        if answer.status not in good:
            raise ApiError(answer.status, value)
        return value

    def get(self, path):
        return self.call("GET", path, (200,))

    def post(self, path, body):
        return self.call("POST", path, (200, 202), body)

    def wait(self, name):
        """Polls a job until it has ended, then asks for its report, as `wait_for_job` does."""
        for _ in range(600):
            if self.get(f"jobs/{name}")["state"] in ("stopped", "finished", "failed"):
                return self.get(f"jobs/{name}/report")
            time.sleep(0.1)
        raise TimeoutError(name)

    def run(self, command, body):
        """Starts a job, waits for its end, and gives its nodes, as `run_task` does."""
        job = self.post(f"command/{command}", body)["job"]
        assert job["id"] == self.root + "jobs/" + job["name"], job
        self.wait(job["name"])
        return job["name"], self.get(f"jobs/{job['name']}/nodes")["items"]

    def each_event(self, name):
        """All events until the last; `start` is never sent, so that each answer has all of them."""
        seen = 0
        while True:
            events = self.get(f"jobs/{name}/events")
            assert events["next-events"]["event"].isdigit(), events
            for event in events["items"][seen:]:
                assert isinstance(event["id"], str) and event["message"], event
                yield event
                if event["type"] in ("job_finished", "job_aborted"):
                    return
            seen = len(events["items"])
            time.sleep(0.1)


def result_of(node):
    """What Bolt makes of a node: see its pcp transport."""
    if node["state"] == "finished" or "_error" in (node["result"] or {}):
        return node["result"]
    return {"_error": {"kind": "puppetlabs.tasks/task-error", "msg": json.dumps(node["result"])}}


def refused(kind, status, call, *arguments):
    try:
        call(*arguments)
    except ApiError as error:
        assert error.kind.split("/")[-1] == kind, error
        assert error.status == status, error
        return
    raise AssertionError(f"{arguments} was not refused as {kind}")


def orchestrator_client(client, nodes):
    task = lambda scope, name="bolt_shim::command", **more: {
        "task": name, "environment": None, "noop": None, "params": {"command": "true"},
        "scope": scope, **more,
    }
    name, items = client.run("task", task({"nodes": nodes}, description="by a client of old"))
    assert sorted(node["name"] for node in items) == sorted(nodes), items
    assert all(node["state"] == "finished" and node["result"] is not None for node in items)
    assert all(isinstance(node["duration"], (int, float)) for node in items)
    job = client.get(f"jobs/{name}")
    assert isinstance(job["duration"], str) and job["node_states"] == {"finished": len(nodes)}
    types = [event["type"] for event in client.each_event(name)]
    assert types.count("node_finished") == len(nodes) and types[-1] == "job_finished", types
    assert client.get("jobs?limit=1")["pagination"]["total"] >= 1

    # A stop without force: what has ended stays as it is, and asking twice is fine.
    for _ in range(2):
        stopped = client.post("command/stop", {"job": name})["job"]
        assert stopped["name"] == name and stopped["nodes"]["finished"] == len(nodes), stopped

    # A Puppet run: the nodes of a lab have no Puppet, and say so; the job ends and has all its parts.
    name, items = client.run(
        "deploy", {"environment": "production", "scope": {"nodes": nodes}, "noop": True}
    )
    assert client.get(f"jobs/{name}")["type"] == "deploy"
    assert all(node["result"] is not None for node in items), items
    assert [event["type"] for event in client.each_event(name)][-1] == "job_finished"

    post = client.post
    refused("unknown-task", 404, post, "command/task", task({"nodes": nodes}, "bolt_shim::nothing"))
    refused("unknown-environment", 404, post, "command/task",
            {**task({"nodes": nodes}), "environment": "nowhere"})
    refused("empty-target", 400, post, "command/task", task({"nodes": []}))
    refused("validation-error", 400, post, "command/task", task({"nodes": nodes}, bogus=1))
    refused("validation-error", 400, post, "command/deploy",
            {"environment": "", "scope": {"nodes": nodes}, "noop": True, "no_noop": True})
    refused("unknown-job", 404, client.get, "jobs/999999")
    refused("validation-error", 400, client.get, "jobs/latest")
    refused("mismatched-job-event-id", 404, client.get, f"jobs/{name}/events?start=1")


def bolt(client, nodes):
    plan = client.post(
        "command/plan_start",
        {"plan_name": "canary", "description": None, "params": {"nodes": ",".join(nodes)}},
    )["name"]
    inventory = client.post("inventory", {"nodes": nodes + ["never.example.com"]})["items"]
    connected = {item["name"] for item in inventory if item["connected"]}
    assert connected == set(nodes), inventory
    body = {
        "task": "bolt_shim::command", "environment": None, "noop": None,
        "params": {"command": "echo out; echo err >&2; exit 3"}, "scope": {"nodes": nodes},
        "description": "run command", "plan_job": plan,
    }
    name, items = client.run("plan_task", body)
    assert client.get(f"jobs/{name}")["type"] == "plan_task"
    for node in items:
        result = result_of(node)
        told = {key: result[key] for key in ("stdout", "stderr", "exit_code")}
        assert told == {"stdout": "out\n", "stderr": "err\n", "exit_code": 3}, node
    client.post("command/plan_finish", {"plan_job": plan, "result": "", "status": "success"})
    refused("plan-already-finished", 409, client.post, "command/plan_task", body)
    refused("unknown-job", 404, client.post, "command/plan_task", {**body, "plan_job": "999999"})
    job = client.get(f"plan_jobs/{plan}")
    assert job["state"] == "success" and list(job["status"]) == [name], job


def main():
    url, ca_file, token, *nodes = sys.argv[1:]
    client = Client(url, ca_file, token)
    orchestrator_client(client, nodes)
    bolt(client, nodes)
    print("as it must be")


if __name__ == "__main__":
    main()
