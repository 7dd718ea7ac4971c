/* Goes before OpenSMTPD 6.8 (Debian 12), which was written for OpenSSL 1.1 and since OpenSSL 3 fails every handshake as a
 * server, "missing private key": the process that speaks TLS has no key, it marks the public one, and its engine asks the
 * process that has the key about every signature that is wanted of a marked one. EVP_PKEY_get1_RSA and EVP_PKEY_get1_EC_KEY
 * give a copy since, so the mark is lost. The copy put back is the one that signs: that is how later versions mend it
 * (OpenSMTPD's issue 1171). Nothing else of the server's TLS is touched. Declared by hand, for the headers are one package
 * more. */
#define _GNU_SOURCE
#include <dlfcn.h>

int EVP_PKEY_get_base_id(const void *key);
void *EVP_PKEY_get1_RSA(void *key);
void *EVP_PKEY_get1_EC_KEY(void *key);
int EVP_PKEY_set1_RSA(void *key, void *copy);
int EVP_PKEY_set1_EC_KEY(void *key, void *copy);

int SSL_CTX_use_PrivateKey(void *context, void *key)
{
	int (*real)(void *, void *) = (int (*)(void *, void *))dlsym(RTLD_NEXT, "SSL_CTX_use_PrivateKey");
	int rsa = EVP_PKEY_get_base_id(key) == 6;
	void *copy = rsa ? EVP_PKEY_get1_RSA(key) : EVP_PKEY_get1_EC_KEY(key);

	if (copy == 0 || !(rsa ? EVP_PKEY_set1_RSA(key, copy) : EVP_PKEY_set1_EC_KEY(key, copy)))
		return 0;
	return real(context, key);
}
