/*
 * bound CERTIFICATE KEY DIRECTORY VERSION BINDING
 *
 * A mail server for the tests of channel binding: OpenSSL has the TLS session (implicit, of that VERSION: 1.2 or 1.3) and
 * computes its binding, Cyrus SASL has the exchange and compares. No server of Debian 12 speaks SMTP and does that, so what
 * is left between the two libraries is here: a few verbs. One session after the other, on a port of loopback that is printed
 * first. Then a line for each that is let in, "USER MECHANISM", and one for each letter, its text in front.
 *
 * BINDING is tls-exporter (RFC 9266), tls-server-end-point (RFC 5929, section 4), or "another": an exporter's, but of
 * another session, as if somebody sat between. DIRECTORY is where Cyrus SASL finds "bound.conf".
 */
#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sasl/sasl.h>
#include <sasl/saslutil.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "bound: %s\n", what);
	exit(1);
}

/* What both ends of the session must have come to, and how many octets. */
static unsigned bind_session(SSL *tls, const char *kind, unsigned char *octets)
{
	unsigned length = 32;

	if (strcmp(kind, "tls-server-end-point") == 0) {
		X509 *certificate = SSL_get_certificate(tls);
		int hash;

		/* MD5 and SHA-1 would have to become SHA-256; the tests' certificates have neither. */
		if (!X509_get_signature_info(certificate, &hash, NULL, NULL, NULL) ||
		    !X509_digest(certificate, EVP_get_digestbynid(hash), octets, &length))
			die("no hash of the certificate");
		return length;
	}
	if (!SSL_export_keying_material(tls, octets, length, "EXPORTER-Channel-Binding", 24, NULL, 0, 0))
		die("no exporter");
	if (strcmp(kind, "another") == 0)
		octets[0] ^= 1;
	return length;
}

static int take(BIO *io, char *line, int size)
{
	int length = BIO_gets(io, line, size);

	while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
		line[--length] = 0;
	return length >= 0 && !(length == 0 && BIO_eof(io));
}

static void say(BIO *io, const char *reply, const char *more)
{
	BIO_printf(io, "%s%s\r\n", reply, more);
	(void)BIO_flush(io);
}

/* RFC 4954: AUTH and what follows it. */
static int authenticate(BIO *io, sasl_conn_t *sasl, char *words)
{
	char *mechanism = strsep(&words, " "), line[16384], said[16384];
	const char *answer = NULL;
	const void *user = NULL;
	unsigned length = 0, given = 0;
	int state = SASL_BADPROT;

	if (words == NULL)
		state = sasl_server_start(sasl, mechanism, NULL, 0, &answer, &length);
	else if (sasl_decode64(words, strlen(words), said, sizeof said, &given) == SASL_OK)
		state = sasl_server_start(sasl, mechanism, said, given, &answer, &length);
	while (state == SASL_CONTINUE) {
		if (sasl_encode64(answer, length, line, sizeof line, NULL) != SASL_OK)
			die("a challenge that is too long");
		say(io, "334 ", line);
		if (!take(io, line, sizeof line) ||
		    sasl_decode64(line, strlen(line), said, sizeof said, &given) != SASL_OK)
			return 0;
		state = sasl_server_step(sasl, said, given, &answer, &length);
	}
	if (state != SASL_OK || sasl_getprop(sasl, SASL_USERNAME, &user) != SASL_OK) {
		fprintf(stderr, "bound: %s: %s\n", mechanism, sasl_errdetail(sasl));
		say(io, "535 5.7.8 ", "authentication failed");
		return 0;
	}
	printf("%s %s\n", (const char *)user, mechanism);
	say(io, "235 2.7.0 ", "welcome");
	return 1;
}

static void serve(BIO *io, sasl_conn_t *sasl)
{
	char line[16384];
	const char *mechanisms;
	int is_in = 0;

	say(io, "220 localhost ", "ESMTP bound");
	while (take(io, line, sizeof line)) {
		if (strncasecmp(line, "EHLO ", 5) == 0) {
			if (sasl_listmech(sasl, NULL, "AUTH ", " ", "", &mechanisms, NULL, NULL) != SASL_OK)
				die(sasl_errdetail(sasl));
			say(io, "250-localhost\r\n250 ", mechanisms);
		} else if (strncasecmp(line, "AUTH ", 5) == 0) {
			is_in = authenticate(io, sasl, line + 5);
		} else if (strcasecmp(line, "QUIT") == 0) {
			say(io, "221 ", "bye");
			return;
		} else if (!is_in) {
			say(io, "530 5.7.0 ", "authenticate first");
		} else if (strcasecmp(line, "DATA") == 0) {
			say(io, "354 ", "go on");
			while (take(io, line, sizeof line) && strcmp(line, ".") != 0)
				printf("letter: %s\n", line);
			say(io, "250 2.0.0 ", "taken");
		} else {
			say(io, "250 2.0.0 ", "ok");
		}
	}
}

int main(int count, char **words)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof at;
	int listener = socket(AF_INET, SOCK_STREAM, 0), version;
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());

	if (count != 6)
		die("five words, please");
	signal(SIGPIPE, SIG_IGN);
	setenv("SASL_CONF_PATH", words[3], 1);
	version = strcmp(words[4], "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
	if (!SSL_CTX_set_min_proto_version(context, version) || !SSL_CTX_set_max_proto_version(context, version) ||
	    SSL_CTX_use_certificate_chain_file(context, words[1]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, words[2], SSL_FILETYPE_PEM) != 1)
		die("no TLS");
	if (sasl_server_init(NULL, "bound") != SASL_OK)
		die("no SASL");
	if (bind(listener, (struct sockaddr *)&at, size) || listen(listener, 16) ||
	    getsockname(listener, (struct sockaddr *)&at, &size))
		die("no port");
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%d\n", ntohs(at.sin_port));
	for (;;) {
		int client = accept(listener, NULL, NULL);
		SSL *tls = SSL_new(context);
		BIO *io = BIO_new(BIO_f_buffer()), *below = BIO_new(BIO_f_ssl());
		sasl_conn_t *sasl;
		unsigned char octets[EVP_MAX_MD_SIZE];
		const char *name = strcmp(words[5], "another") == 0 ? "tls-exporter" : words[5];
		sasl_channel_binding_t binding = {.name = name, .data = octets};

		SSL_set_fd(tls, client);
		if (SSL_accept(tls) == 1) {
			binding.len = bind_session(tls, words[5], octets);
			if (sasl_server_new("smtp", "localhost", "localhost", NULL, NULL, NULL, 0, &sasl) != SASL_OK ||
			    sasl_setprop(sasl, SASL_CHANNEL_BINDING, &binding) != SASL_OK)
				die("no SASL for the session");
			BIO_set_ssl(below, tls, BIO_NOCLOSE);
			BIO_push(io, below);
			serve(io, sasl);
			sasl_dispose(&sasl);
			SSL_shutdown(tls);
		}
		BIO_free_all(io);
		SSL_free(tls);
		close(client);
	}
}
