"""Instruments: the sink, the gauge, strace, jails, letters, medians."""

import collections
import hashlib
import json
import os
import shutil
import statistics
import subprocess

USER, PASSWORD = "bench", "secret"
SENDER, DOMAIN = "sender@bench.example", "rcpt.example"

Run = collections.namedtuple("Run", "at wall cpu rss status")
"""One run of a program: start (seconds since 1970), wall and CPU seconds, peak RSS in MiB, exit status."""

Relay = collections.namedtuple("Relay", "port ca implicit")
"""What a peer is to talk to, on 127.0.0.1 and under the name localhost."""


class Failed(Exception):
    """A peer cannot be measured; the message says why."""


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


class Bench:
    """Paths and programs of one run of the benchmarks."""

    def __init__(self, work, cache, sendmail, sink):
        self.work, self.cache, self.sendmail, self.sink_program = work, cache, sendmail, sink
        self.gauge_program = self.path("gauge")
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run(["cc", "-O2", "-o", self.gauge_program, os.path.join(here, "gauge.c")], check=True)
        self.ca, self.certificate, self.key = self.path("ca.pem"), self.path("cert.pem"), self.path("key.pem")
        self._certificates()
        self._sinks = {}
        self.jails = []
        self.log = open(self.path("stderr.log"), "ab")

    def path(self, *parts):
        path = os.path.join(self.work, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def _certificates(self):
        def openssl(*words, **more):
            subprocess.run(["openssl", *words], check=True, capture_output=True, **more)

        ca_key, request = self.path("ca.key"), self.path("cert.csr")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", self.ca, "-days", "30", "-subj", "/CN=bench CA")
        openssl("req", *curve, "-keyout", self.key, "-out", request, "-subj", "/CN=localhost")
        extensions = self.write("cert.ext", "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "30",
                "-extfile", extensions, "-out", self.certificate)
        os.chmod(self.ca, 0o644)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        with open(path, "w", encoding="ascii", newline="") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def sink(self, rtt=0, implicit=False, tickets=2, chunking=True):
        """The sink of that manner, started when first asked for."""
        manner = (rtt, implicit, tickets, chunking)
        if manner not in self._sinks:
            self._sinks[manner] = Sink(self, *manner)
        return self._sinks[manner]

    def letter(self, name, octets, recipients=1, checked=True, crlf=False):
        """A letter whose body has about so many octets in canonical form; its file."""
        line = "The quick brown fox jumps over the lazy dog; it is none the worse for it, ok.\n"
        body = ".a line that begins with a dot\n" + line * max(1, (octets - 32) // (len(line) + 1))
        canonical = body.replace("\n", "\r\n").encode("ascii")
        digest = hashlib.sha256(canonical).hexdigest() if checked else "-"
        text = (f"From: Bench <{SENDER}>\nTo: {', '.join(self.recipients(1))}\nSubject: bench\n"
                f"Date: Sun, 1 Nov 2026 12:00:00 +0000\nMessage-ID: <{name}@bench.example>\n"
                f"X-Body: {len(canonical)} {digest}\n\n{body}")
        return self.write(f"letters/{name}", text.replace("\n", "\r\n") if crlf else text)

    @staticmethod
    def recipients(count):
        return [f"r{number}@{DOMAIN}" for number in range(count)]

    def environment(self, extra=()):
        home = self.path("home", ".")
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.path.normpath(home), "LANG": "C", **dict(extra)}

    def gauge(self, peer, argv, letter=os.devnull, repeat=1, timeout=120):
        """Runs a peer's command, in its jail where it has one."""
        words = [*peer.prefix(), self.gauge_program, str(repeat), letter, "--", *argv]
        try:
            done = subprocess.run(words, env=self.environment(peer.env), stdout=subprocess.PIPE, stderr=self.log,
                                  stdin=subprocess.DEVNULL, timeout=timeout, check=True, cwd=self.work)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end after {timeout} s") from None
        except subprocess.CalledProcessError as error:
            raise Failed(f"cannot be run ({error.returncode})") from None
        runs = []
        for line in done.stdout.decode().splitlines():
            at, wall, cpu, rss, status = line.split()
            runs.append(Run(float(at), float(wall), float(cpu), int(rss) / 1024, int(status)))
        return runs

    def start_gauge(self, peer, argv, letter, repeat):
        """The same, in the background."""
        words = [*peer.prefix(), self.gauge_program, str(repeat), letter, "--", *argv]
        return subprocess.Popen(words, env=self.environment(peer.env), stdout=subprocess.DEVNULL, stderr=self.log,
                                stdin=subprocess.DEVNULL, cwd=self.work)

    def calls(self, peer, argv, letter=os.devnull, follow=True):
        """System calls by name, children included where asked."""
        trace = self.path("strace.txt")
        words = [*peer.prefix(), "strace", *(["-f"] if follow else []), "-qq", "-c", "-o", trace, *argv]
        with open(letter, "rb") as file:
            try:
                subprocess.run(words, env=self.environment(peer.env), stdin=file, stdout=subprocess.DEVNULL,
                               stderr=self.log, timeout=60, check=False, cwd=self.work)
            except subprocess.TimeoutExpired:
                return {}
        calls = {}
        with open(trace, encoding="ascii") as file:
            for line in file:
                words = line.split()
                if len(words) in (5, 6) and words[-1] != "total" and words[3].isdigit():
                    calls[words[-1]] = int(words[3])
        return calls


def fsyncs(calls):
    return sum(calls.get(name, 0) for name in ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range"))


class Sink:
    """A relay of ours in the background."""

    def __init__(self, bench, rtt, implicit, tickets, chunking):
        words = [bench.sink_program, "--rtt", str(rtt), "--tickets", str(tickets)]
        words += ["--implicit"] if implicit else []
        words += [] if chunking else ["--no-chunking"]
        self.process = subprocess.Popen([*words, bench.certificate, bench.key], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.rtt = rtt / 1000
        self.relay = Relay(json.loads(self.process.stdout.readline())["port"], bench.ca, implicit)

    def take(self, letters=0, seconds=0.0):
        """What it saw since it was last asked, after so many letters or seconds."""
        self.process.stdin.write(f"take {letters} {seconds}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Jail:
    """The system with some packages laid over it, in name spaces of its own: nothing done inside is left behind.

    Mounts and processes end with the process that holds them, and so with us. The network is the machine's.
    """

    def __init__(self, bench, name, packages):
        self.bench = bench
        base = bench.path("jails", name, ".")
        self.upper, root = os.path.join(base, "upper"), os.path.join(base, "root")
        for part in ("upper", "work", "root"):
            os.makedirs(os.path.join(base, part), exist_ok=True)
        os.chmod(self.upper, 0o755)
        for package in packages:
            subprocess.run(["cp", "-a", unpacked(bench.cache, package) + "/.", self.upper], check=True)
        script = (
            'set -e; base=$1; root=$base/root; mount -t overlay overlay '
            '-o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$root"; '
            'shift; for dir; do mkdir -p "$root$dir"; mount --bind "$dir" "$root$dir"; done; '
            'mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; echo ready; '
            'cd "$root"; exec chroot . sh -c "while :; do sleep 3600; done"')
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
             "sh", "-c", script, "sh", os.path.normpath(base), bench.work, bench.cache],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=bench.log)
        if self.holder.stdout.readline() != b"ready\n":
            raise Failed("no name spaces or no overlay here (needs root)")
        with open(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children", encoding="ascii") as file:
            self.init = file.read().split()[0]
        bench.jails.append(self)

    def end(self):
        """Nothing in it outlives the first of its processes."""
        os.kill(int(self.init), 9)
        self.holder.wait()

    def prefix(self):
        return ["nsenter", "--target", self.init, "--mount", "--pid", "--root", "--wdns=/"]

    def do(self, *words, check=True, **more):
        """Runs a command inside, for its effect."""
        done = subprocess.run([*self.prefix(), *words], env=self.bench.environment(), stdin=subprocess.DEVNULL,
                              stdout=self.bench.log, stderr=self.bench.log, check=False, timeout=60, **more)
        if check and done.returncode != 0:
            raise Failed(f"{' '.join(words)}: exit {done.returncode}")

    def write(self, path, text, mode=0o644, owner=None):
        """A file inside."""
        self.do("mkdir", "-p", os.path.dirname(path))
        subprocess.run([*self.prefix(), "tee", path], input=text.encode("ascii"), stdout=subprocess.DEVNULL,
                       check=True)
        self.do("chmod", f"{mode:o}", path)
        if owner:
            self.do("chown", owner, path)

    def processes(self):
        """Everything that runs inside, the holder aside; process ids as seen from outside."""
        space = os.readlink(f"/proc/{self.init}/ns/pid")
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") == space and pid != self.init:
                    found.append(int(pid))
            except OSError:
                pass
        return found


def unpacked(cache, package):
    """A Debian package's files, fetched with apt-get when first asked for."""
    target = os.path.join(cache, "unpacked", package)
    if not os.path.isdir(target):
        debs = os.path.join(cache, "debs", package)
        shutil.rmtree(debs, ignore_errors=True)
        os.makedirs(debs)
        fetched = subprocess.run(["apt-get", "download", package], cwd=debs, capture_output=True, check=False)
        names = [name for name in os.listdir(debs) if name.endswith(".deb")]
        if fetched.returncode != 0 or not names:
            raise Failed(f"apt-get download {package} failed")
        half = target + ".part"
        shutil.rmtree(half, ignore_errors=True)
        os.makedirs(half)
        subprocess.run(["dpkg", "-x", os.path.join(debs, names[0]), half], check=True)
        # Over a merged /usr, a directory /lib would hide the link of that name; all that lies there is for systemd.
        shutil.rmtree(os.path.join(half, "lib"), ignore_errors=True)
        os.rename(half, target)
    return target
