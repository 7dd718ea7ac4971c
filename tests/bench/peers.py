"""The programs that are measured, each with a configuration of its own.

A peer is told which relay to use (`aim`), and gives the command line that submits a letter on standard input
(`send`). A *client* has delivered when that returns; a *daemon* has only taken the letter, and delivers in the
background; a *queue* can also keep letters until told to deliver (`hold`, `release`). Whatever cannot be made to run
here raises Failed, and stands so in the tables.
"""

import os
import shutil
import subprocess
import time

from measure import PASSWORD, SENDER, USER, Failed, Jail, unpacked


class Peer:
    """One program, and how it is used."""

    client = True
    tickets = 2
    """Session tickets that the sink may send it."""

    def __init__(self, bench, name):
        self.bench, self.name, self.jail, self.env, self.relay = bench, name, None, {}, None

    def prefix(self):
        return self.jail.prefix() if self.jail else []

    def aim(self, relay):
        self.relay = relay
        self.configure()

    def configure(self):
        """Writes the configuration for `self.relay`."""

    def stop(self):
        """Ends what `aim` or `release` started."""

    def letter(self, name, octets, checked=True):
        return self.bench.letter(name, octets, checked=checked)


def program(name):
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise Failed(f"{name} is not installed")
    return path


class Pillarbox(Peer):
    """Ours. `more` goes into [queue]."""

    def __init__(self, bench, name="pillarbox", more=""):
        super().__init__(bench, name)
        self.more = more
        self.program = bench.sendmail
        self.queue = bench.path(f"{name}-queue")
        self.config = f"{name}/config.toml"
        self.env = {"PILLARBOX_CONFIG": bench.path(self.config), "PILLARBOX_QUEUE_DIR": self.queue}

    def configure(self):
        tls = "implicit" if self.relay.implicit else "starttls"
        self.bench.write(self.config, (
            f'[account.bench]\nhost = "127.0.0.1"\nport = {self.relay.port}\ntls = "{tls}"\nuser = "{USER}"\n'
            f'password = "{PASSWORD}"\nfrom = "{SENDER}"\nca_file = "{self.relay.ca}"\n[queue]\n{self.more}\n'), 0o600)

    def send(self, recipients, mode="-odi"):
        return [self.program, mode, "-i", "-f", SENDER, *recipients]

    def empty(self):
        shutil.rmtree(self.queue, ignore_errors=True)

    def hold(self):
        self.empty()

    def enqueue(self, recipients):
        return self.send(recipients, "-odq")

    def release(self):
        return [self.program, "-q"]

    def mailq(self):
        return [self.program, "-bp"]


class Service(Peer):
    """`sendmail` without a configuration, and the machine's service behind its socket."""

    def __init__(self, bench):
        super().__init__(bench, "service")
        self.program = bench.sendmail
        self.daemon_program = os.path.join(os.path.dirname(bench.sendmail), "pillarbox")
        if not os.access(self.daemon_program, os.X_OK):
            raise Failed(f"no {self.daemon_program}")
        self.socket, self.queue = bench.path("service/submit.sock"), bench.path("service/spool")
        # The configuration that everybody else's is measured by must not be found.
        self.env = {"PILLARBOX_SOCKET": self.socket, "HOME": os.path.normpath(bench.path("service/home", "."))}
        self.daemon = None

    def configure(self):
        self.stop()
        config = self.bench.write("service/config.toml", (
            f'[account.bench]\nhost = "127.0.0.1"\nport = {self.relay.port}\nuser = "{USER}"\npassword = "{PASSWORD}"\n'
            f'ca_file = "{self.relay.ca}"\n[serve]\nsocket = "{self.socket}"\nmax_connections = 200\n'
            'max_connections_per_user = 200\nletters_per_hour = 65535\n'), 0o600)
        environment = self.bench.environment({"PILLARBOX_CONFIG": config, "PILLARBOX_QUEUE_DIR": self.queue})
        self.daemon = subprocess.Popen([self.daemon_program, "serve"], stdin=subprocess.DEVNULL, env=environment,
                                       stdout=self.bench.log, stderr=self.bench.log)
        for _ in range(200):
            if os.path.exists(self.socket):
                return
            time.sleep(0.02)
        raise Failed("the service does not start")

    def send(self, recipients):
        return [self.program, "-i", "-f", SENDER, *recipients]

    def enqueue(self, recipients):
        return self.send(recipients)

    def empty(self):
        shutil.rmtree(self.queue, ignore_errors=True)

    def hold(self):
        self.stop()
        self.empty()

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait(60)
            self.daemon = None


class Msmtp(Peer):
    def __init__(self, bench):
        super().__init__(bench, "msmtp")
        self.program = os.path.join(unpacked(bench.cache, "msmtp"), "usr/bin/msmtp")
        library = os.path.join(unpacked(bench.cache, "libsecret-1-0"), "usr/lib/x86_64-linux-gnu")
        self.env = {"LD_LIBRARY_PATH": library}

    def configure(self):
        self.config = self.bench.write("msmtprc", (
            f"account default\nhost localhost\nport {self.relay.port}\ntls on\n"
            f"tls_starttls {'off' if self.relay.implicit else 'on'}\ntls_trust_file {self.relay.ca}\n"
            f"auth plain\nuser {USER}\npassword {PASSWORD}\nfrom {SENDER}\n"), 0o600)

    def send(self, recipients):
        return [self.program, "-C", self.config, "-f", SENDER, "--", *recipients]


class Curl(Peer):
    def __init__(self, bench):
        super().__init__(bench, "curl")
        self.program = program("curl")

    def send(self, recipients):
        scheme = "smtps" if self.relay.implicit else "smtp"
        words = [self.program, "-sS", "--ssl-reqd", "--cacert", self.relay.ca, "--url",
                 f"{scheme}://localhost:{self.relay.port}/bench.example", "--user", f"{USER}:{PASSWORD}",
                 "--mail-from", SENDER, "-T", "-"]
        return words + [word for recipient in recipients for word in ("--mail-rcpt", recipient)]

    def letter(self, name, octets, checked=True):
        # Given as it goes over the wire, for curl sends bare line feeds as they are.
        return self.bench.letter(f"{name}-crlf", octets, checked=checked, crlf=True)


class Snail(Peer):
    def __init__(self, bench):
        super().__init__(bench, "s-nail")
        self.program = program("s-nail")

    def configure(self):
        scheme = "smtps" if self.relay.implicit else "submission"
        self.config = self.bench.write("mailrc", (
            "set v15-compat noemptystart sendwait\nset smtp-auth=plain smtp-use-starttls\n"
            f"set mta={scheme}://{USER}:{PASSWORD}@localhost:{self.relay.port}\n"
            f"set tls-ca-file={self.relay.ca} tls-ca-no-defaults from={SENDER} hostname=bench.example\n"), 0o600)
        self.env = {"MAILRC": self.config}

    def send(self, recipients):
        return [self.program, "-:u", "-s", "bench", *recipients]


class Daemon(Peer):
    """A peer in a jail, with users of its own."""

    client = False
    packages, users = (), ()

    def __init__(self, bench, name):
        super().__init__(bench, name)
        self.jail = Jail(bench, name, self.packages)
        for number, user in enumerate(self.users):
            self.jail.do("sh", "-c", 'echo "$1:x:$2:$2::/nonexistent:/bin/false" >>/etc/passwd; '
                         'echo "$1:x:$2:" >>/etc/group', "sh", user, str(61000 + number))
        self.jail.write("/etc/mailname", "bench.example\n")

    def bind(self, path, mode, owner="root"):
        """A directory on the real file system, so that the overlay is not measured."""
        outside = self.bench.path("spools", self.name + path.replace("/", "-"), ".")
        self.jail.do("mkdir", "-p", path)
        self.jail.do("mount", "--bind", os.path.normpath(outside), path)
        self.jail.do("chmod", mode, path)
        self.jail.do("chown", owner, path)

    def kill(self):
        """Ends every process of the jail."""
        for pid in self.jail.processes():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        for _ in range(50):
            if not self.jail.processes():
                return
            time.sleep(0.02)


class Esmtp(Daemon):
    """In a jail, for its library finds the SASL mechanisms nowhere else."""

    client = True
    tickets = 0  # It hangs when it is sent any.
    packages = ("esmtp", "libesmtp6")

    def __init__(self, bench):
        super().__init__(bench, "esmtp")

    def configure(self):
        if self.relay.implicit:
            raise Failed("no implicit TLS")
        directory = os.path.join(self.bench.environment()["HOME"], ".config", "libesmtp")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        shutil.copyfile(self.relay.ca, os.path.join(directory, "ca.pem"))
        os.chmod(os.path.join(directory, "ca.pem"), 0o600)
        self.config = self.bench.write("esmtprc", (
            f"hostname = localhost:{self.relay.port}\nusername = \"{USER}\"\npassword = \"{PASSWORD}\"\n"
            "starttls = required\n"), 0o600)

    def send(self, recipients):
        return ["/usr/bin/esmtp", "-C", self.config, "-f", SENDER, *recipients]


class Dma(Daemon):
    packages, users = ("dma",), ()

    def __init__(self, bench, name="dma"):
        super().__init__(bench, name)
        self.bind("/var/spool/dma", "2770", "root:mail")
        self.deferred = False

    def configure(self):
        self.jail.write("/etc/dma/auth.conf", f"{USER}|localhost:{PASSWORD}\n", 0o640, "root:mail")
        tls = "SECURETRANSFER\n" + ("" if self.relay.implicit else "STARTTLS\n")
        self.jail.write("/etc/dma/dma.conf", (
            f"SMARTHOST localhost\nPORT {self.relay.port}\nAUTHPATH /etc/dma/auth.conf\nMAILNAME bench.example\n{tls}"
            + ("DEFER\n" if self.deferred else "")), 0o640, "root:mail")

    def send(self, recipients):
        return ["/usr/sbin/dma", "-i", "-f", SENDER, *recipients]

    def hold(self):
        self.deferred = True
        self.jail.do("sh", "-c", "rm -f /var/spool/dma/[MQ]*", check=False)
        self.configure()

    def enqueue(self, recipients):
        return self.send(recipients)

    def release(self):
        self.deferred = False
        self.configure()
        return ["/usr/sbin/dma", "-q"]

    def mailq(self):
        return ["/usr/sbin/dma", "-bp"]

    def stop(self):
        self.kill()


class DmaForeground(Dma):
    """`dma -D`: delivers before it returns, and only to the first recipient where there are several."""

    client = True

    def __init__(self, bench):
        super().__init__(bench, "dma -D")

    def send(self, recipients):
        return ["/usr/sbin/dma", "-D", "-i", "-f", SENDER, *recipients]


class Nullmailer(Daemon):
    packages, users = ("nullmailer",), ("nullmailer",)

    def __init__(self, bench):
        super().__init__(bench, "nullmailer")
        self.bind("/var/spool/nullmailer", "755")
        self.jail.do("sh", "-c", "cd /var/spool/nullmailer; mkdir -p queue tmp failed; test -p trigger || mkfifo trigger; "
                     "chown -R --reference=/usr/sbin/nullmailer-queue .")
        self.sender = None

    def configure(self):
        tls = "--ssl" if self.relay.implicit else "--starttls"
        self.jail.write("/etc/nullmailer/remotes", (
            f"localhost smtp --port={self.relay.port} {tls} --user={USER} --pass={PASSWORD} "
            f"--x509cafile={self.relay.ca}\n"), 0o600)
        self.stop()
        self._start()

    def _start(self):
        self.sender = subprocess.Popen([*self.prefix(), "/usr/sbin/nullmailer-send"], stdin=subprocess.DEVNULL,
                                       stdout=self.bench.log, stderr=self.bench.log, env=self.bench.environment())
        time.sleep(0.3)

    def send(self, recipients):
        return ["/usr/sbin/sendmail", "-i", "-f", SENDER, *recipients]

    def hold(self):
        self.stop()
        self.jail.do("sh", "-c", "rm -f /var/spool/nullmailer/queue/*")

    def enqueue(self, recipients):
        return self.send(recipients)

    def release(self):
        return ["sh", "-c", "/usr/sbin/nullmailer-send >/dev/null 2>&1 & "]

    def mailq(self):
        return ["/usr/bin/mailq"]

    def stop(self):
        self.kill()
        if self.sender:
            self.sender.wait()
            self.sender = None


class Postfix(Daemon):
    def __init__(self, bench, name="postfix", reuse=False):
        if not os.path.exists("/usr/sbin/postfix"):
            raise Failed("postfix is not installed")
        super().__init__(bench, name)
        self.reuse, self.deferred = reuse, False
        self.bind("/var/spool/postfix", "755")
        self.jail.do("sh", "-c", "rm -rf /var/lib/postfix/*")

    def main_cf(self):
        return (
            "compatibility_level = 3.6\nmyhostname = bench.example\nmydestination =\nlocal_recipient_maps =\n"
            "inet_interfaces = loopback-only\ninet_protocols = ipv4\nmessage_size_limit = 0\nmailbox_size_limit = 0\n"
            f"alias_maps =\nalias_database =\nbiff = no\nrelayhost = [localhost]:{self.relay.port}\n"
            "smtp_host_lookup = native\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
            f"smtp_sasl_password_maps = inline:{{ {{ [localhost]:{self.relay.port} = {USER}:{PASSWORD} }} }}\n"
            f"smtp_tls_security_level = verify\nsmtp_tls_CAfile = {self.relay.ca}\nsmtp_tls_verify_cert_match = hostname\n"
            f"smtp_tls_wrappermode = {'yes' if self.relay.implicit else 'no'}\n"
            f"smtp_tls_connection_reuse = {'yes' if self.reuse else 'no'}\n"
            f"defer_transports = {'smtp' if self.deferred else ''}\n")

    def master_cf(self):
        with open("/usr/share/postfix/master.cf.dist", encoding="ascii") as file:
            lines = [line.split() for line in file if line.strip() and not line.startswith(("#", " ", "\t"))]
        # No chroot, and no port 25. What keeps TLS connections for reuse is commented out there.
        return "".join(" ".join([*words[:4], "n", *words[5:]]) + "\n" for words in lines if words[1] != "inet"
                       and words[7] not in ("pipe", "postlogd")) + "tlsproxy unix - - n - 0 tlsproxy\n"

    def configure(self):
        self.stop()
        self.jail.write("/etc/postfix/main.cf", self.main_cf())
        self.jail.write("/etc/postfix/master.cf", self.master_cf())
        self.jail.do("postfix", "start")
        time.sleep(0.5)

    def send(self, recipients):
        return ["/usr/sbin/sendmail", "-i", "-f", SENDER, *recipients]

    def hold(self):
        self.jail.do("postsuper", "-d", "ALL", check=False)
        self.deferred = True
        self.configure()

    def enqueue(self, recipients):
        return self.send(recipients)

    def settled(self, letters):
        """Waits until so many letters lie in the deferred queue."""
        for _ in range(600):
            found = subprocess.run([*self.prefix(), "sh", "-c", "find /var/spool/postfix/deferred -type f | wc -l"],
                                   stdout=subprocess.PIPE, check=True).stdout
            if int(found) >= letters:
                return
            time.sleep(0.1)
        raise Failed("letters do not reach the deferred queue")

    def release(self):
        self.deferred = False
        self.jail.write("/etc/postfix/main.cf", self.main_cf())
        return ["sh", "-c", "postfix reload 2>/dev/null; postqueue -f"]

    def mailq(self):
        return ["/usr/bin/mailq"]

    def stop(self):
        self.jail.do("postfix", "stop", check=False)
        self.kill()
        self.jail.do("rm", "-f", "/var/spool/postfix/pid/master.pid", "/var/lib/postfix/master.lock", check=False)


class Exim(Daemon):
    packages, users = ("exim4-daemon-light", "exim4-base"), ("Debian-exim",)

    def __init__(self, bench, name="exim", foreground=False):
        super().__init__(bench, name)
        self.client = foreground
        self.bind("/var/spool/exim4", "750", "Debian-exim")
        self.bind("/var/log/exim4", "750", "Debian-exim")

    def configure(self):
        if self.relay.implicit:
            raise Failed("left out")
        self.jail.write("/etc/exim4/exim4.conf", (
            "primary_hostname = bench.example\nspool_directory = /var/spool/exim4\n"
            "log_file_path = /var/log/exim4/%slog\nmessage_size_limit = 500M\nkeep_environment =\n"
            "queue_run_max = 1\nlocal_interfaces = <; 127.0.0.1\nnever_users =\ntrusted_users = root\n"
            "begin routers\nsmart:\n  driver = manualroute\n  transport = relay\n  route_list = * localhost byname\n"
            "  self = send\n"
            f"begin transports\nrelay:\n  driver = smtp\n  port = {self.relay.port}\n  hosts_require_tls = *\n"
            f"  hosts_require_auth = *\n  tls_verify_certificates = {self.relay.ca}\n  tls_verify_hosts = *\n"
            f"begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n"
            f"  client_send = ^{USER}^{PASSWORD}\n"
            "begin retry\n* * F,2h,1m\n"), 0o640, "root:Debian-exim")

    def send(self, recipients):
        return ["/usr/sbin/exim4", "-odf" if self.client else "-odb", "-i", "-f", SENDER, *recipients]

    def hold(self):
        self.jail.do("sh", "-c", "find /var/spool/exim4/input -type f -delete", check=False)

    def enqueue(self, recipients):
        return ["/usr/sbin/exim4", "-odq", "-i", "-f", SENDER, *recipients]

    def release(self):
        return ["/usr/sbin/exim4", "-qf"]

    def mailq(self):
        return ["/usr/sbin/exim4", "-bp"]

    def stop(self):
        self.kill()


class Opensmtpd(Daemon):
    packages, users = ("opensmtpd",), ("opensmtpd", "opensmtpq")

    def __init__(self, bench):
        super().__init__(bench, "opensmtpd")
        self.bind("/var/spool/smtpd", "711")
        self.jail.do("mkdir", "-p", "/var/lib/opensmtpd/empty", "/var/run", "/run")
        self.jail.do("mount", "-t", "tmpfs", "tmpfs", "/run")
        self.jail.do("sh", "-c", "chgrp opensmtpq /usr/sbin/smtpctl && chmod g+s /usr/sbin/smtpctl")
        self.daemon = None

    def configure(self):
        if self.relay.implicit:
            raise Failed("left out")
        self.stop()
        self.jail.write("/etc/secrets", f"relay {USER}:{PASSWORD}\n", 0o600)
        self.jail.write("/etc/smtpd.conf", (
            "smtp max-message-size 500M\ntable secrets file:/etc/secrets\nlisten on socket\n"
            f"action \"relay\" relay host smtp+tls://relay@127.0.0.1:{self.relay.port} auth <secrets> tls no-verify\n"
            "match from any for any action \"relay\"\n"), 0o600)
        self.daemon = subprocess.Popen([*self.prefix(), "/usr/sbin/smtpd", "-F"], stdin=subprocess.DEVNULL,
                                       stdout=self.bench.log, stderr=self.bench.log, env=self.bench.environment())
        time.sleep(1)
        if self.daemon.poll() is not None:
            raise Failed("smtpd does not start")

    def send(self, recipients):
        return ["/usr/sbin/sendmail", "-i", "-f", SENDER, *recipients]

    def hold(self):
        self.jail.do("smtpctl", "pause", "mta")

    def enqueue(self, recipients):
        return self.send(recipients)

    def release(self):
        return ["/usr/sbin/smtpctl", "resume", "mta"]

    def mailq(self):
        return ["/usr/sbin/smtpctl", "show", "queue"]

    def stop(self):
        self.kill()
        if self.daemon:
            self.daemon.wait()
            self.daemon = None


class PostfixRelay(Postfix):
    """A real Postfix on the other side: submission with STARTTLS and Cyrus SASL, everything discarded."""

    def __init__(self, bench):
        super().__init__(bench, "postfix relay")
        self.port = 0

    def start(self):
        import socket
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.jail.write("/etc/postfix/sasl/smtpd.conf", (
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\n"))
        self.jail.do("sh", "-c", f"echo {PASSWORD} | saslpasswd2 -p -c -u bench.example {USER}; chmod 644 /etc/sasldb2")
        self.jail.do("sh", "-c", f"cp {self.bench.key} /etc/postfix/key.pem; cp {self.bench.certificate} /etc/postfix/cert.pem")
        main = (
            "compatibility_level = 3.6\nmyhostname = bench.example\nmydestination =\nlocal_recipient_maps =\n"
            "inet_interfaces = loopback-only\ninet_protocols = ipv4\nmessage_size_limit = 0\nmailbox_size_limit = 0\n"
            "alias_maps =\nalias_database =\nbiff = no\ndefault_transport = discard\n"
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = /etc/postfix/cert.pem\n"
            "smtpd_tls_key_file = /etc/postfix/key.pem\nsmtpd_sasl_auth_enable = yes\n"
            "smtpd_sasl_local_domain = bench.example\nsmtpd_tls_auth_only = yes\n"
            "smtpd_recipient_restrictions = permit_sasl_authenticated, reject\n")
        self.jail.write("/etc/postfix/main.cf", main)
        self.jail.write("/etc/postfix/master.cf", self.master_cf() + f"127.0.0.1:{self.port} inet n - n - - smtpd\n")
        self.jail.do("postfix", "start")
        time.sleep(0.5)
