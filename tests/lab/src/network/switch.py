"""An Ethernet switch whose ports are the network devices of a lab's hosts.

Each argument is the name of a TAP device, which this program makes and the lab moves to a host; that
of the Nth has the MAC address 02:00:00:00:00:N, from 0. Between any two of them, each direction apart,
frames may be cut, lost, delayed, or refused for what they carry. Lines of JSON on standard input say
how, and each is answered by one line when it is in force. The end of the input means that the lab was
killed: then the switch ends the lab's processes, which have an argument in its directory, and itself.

Frames are whole: a TAP device leaves neither checksums nor segments to its reader.
"""

import fcntl
import heapq
import json
import os
import random
import selectors
import signal
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
ETHERTYPE_IPV4, ETHERTYPE_ARP = 0x0800, 0x0806
UDP = 17
HEADER = 14
PROGRAMS = (b"pxp-agent", b"execution-wrapper", b"pcp-broker", b"pxp-orchestrator")
LARGEST = 65_535 + HEADER
# This file lies in a folder of it.
LAB = os.path.dirname(os.path.dirname(os.path.abspath(__file__))).encode()


def end_processes(directory):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                program, *arguments = line.read().split(b"\0")
            inside = any(word.startswith(directory + b"/") for word in arguments)
            if inside and os.path.basename(program) in PROGRAMS:
                os.kill(int(pid), signal.SIGTERM)
        except OSError:
            # It has ended meanwhile.
            continue


def tap(name):
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return port


class Path:
    """What happens to frames from one port to another."""

    def __init__(self, cut=False, loss=0.0, delay=0.0, jitter=0.0, no_udp=False, mtu=None):
        self.cut, self.loss, self.delay, self.jitter = cut, loss, delay, jitter
        self.no_udp, self.mtu = no_udp, mtu

    def drops(self, frame):
        if self.cut:
            return True
        if struct.unpack_from("!H", frame, 12)[0] == ETHERTYPE_IPV4:
            (length,) = struct.unpack_from("!H", frame, HEADER + 2)
            if self.mtu is not None and length > self.mtu:
                return True
            if self.no_udp and frame[HEADER + 9] == UDP:
                return True
        return random.random() < self.loss

    def wait(self):
        """Chance in it makes frames overtake each other."""
        return self.delay + random.random() * self.jitter


class Switch:
    def __init__(self, names):
        self.ports = [tap(name) for name in names]
        self.paths = {}
        # By path: frames that went on, and frames that did not.
        self.counts = {}
        # Frames under way: when they arrive, a number that keeps the order of equals, where, what.
        self.late = []
        self.number = 0

    def frame(self, source, frame):
        (kind,) = struct.unpack_from("!H", frame, 12)
        if kind not in (ETHERTYPE_IPV4, ETHERTYPE_ARP):
            return
        # The lowest bit of the first byte says that a frame is for everybody.
        everybody = [port for port in range(len(self.ports)) if port != source]
        for target in everybody if frame[0] & 1 else [frame[5]]:
            path = self.paths.get((source, target), Path())
            count = self.counts.setdefault((source, target), [0, 0])
            if path.drops(frame):
                count[1] += 1
                continue
            count[0] += 1
            wait = path.wait()
            if wait > 0:
                self.number += 1
                heapq.heappush(self.late, (time.monotonic() + wait, self.number, target, frame))
            else:
                self.deliver(target, frame)

    def deliver(self, target, frame):
        try:
            os.write(self.ports[target], frame)
        except OSError:
            # A device that is down, or whose queue is full, loses the frame.
            pass

    def arrivals(self):
        """Hands over what is due, and says in how many seconds the next is."""
        while self.late:
            wait = self.late[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, target, frame = heapq.heappop(self.late)
            self.deliver(target, frame)
        return None

    def command(self, line):
        order = json.loads(line)
        way = (order["from"], order["to"])
        if "path" in order:
            self.paths[way] = Path(**order["path"])
        passed, dropped = self.counts.get(way, (0, 0))
        print(json.dumps({"passed": passed, "dropped": dropped}), flush=True)

    def run(self):
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin, selectors.EVENT_READ)
        for number, port in enumerate(self.ports):
            selector.register(port, selectors.EVENT_READ, number)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select(self.arrivals()):
                if key.fileobj is sys.stdin:
                    line = sys.stdin.readline()
                    if not line:
                        return end_processes(LAB)
                    self.command(line)
                    continue
                try:
                    self.frame(key.data, os.read(key.fd, LARGEST))
                except OSError:
                    # Nothing is there after all, or the device is down.
                    continue


Switch(sys.argv[1:]).run()
