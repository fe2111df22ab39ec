package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"syscall"
)

// certificate returns the certificate that this host shows to a server: sslcert with its sslkey. It returns nil if
// there is no file: libpq then shows no certificate, and the server decides whether that will do.
func (c *connection) certificate() (*tls.Certificate, error) {
	path, err := c.file("sslcert", ".postgresql/postgresql.crt")
	if err != nil || c.keywords["sslcertmode"] == "disable" {
		return nil, err
	}
	chain, err := os.ReadFile(path)
	switch {
	case notThere(err):
		return nil, nil
	case err != nil:
		return nil, refuse("sslcert", "cannot be followed: %s", oneLine(err.Error()))
	}
	if strings.Contains(c.keywords["sslkey"], ":") {
		return nil, refuse("sslkey", "names a key of an OpenSSL engine: pgrex cannot follow it; use a file")
	}
	path, err = c.file("sslkey", ".postgresql/postgresql.key")
	if err != nil {
		return nil, err
	}
	key, err := c.privateKey(path)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, refuse("sslcert", "and sslkey cannot be followed: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &pair, nil
}

// privateKey reads a key in PEM or DER, and returns it decrypted, in PEM. Only the owner of the file may have access to
// it; if that is root, its group may read it.
func (c *connection) privateKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, refuse("sslkey", "cannot be followed: there is a certificate, and no key: %s", oneLine(err.Error()))
	}
	others := os.FileMode(0o077)
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == 0 {
		others = 0o037
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&others != 0 {
		return nil, refuse("sslkey", "leads to %s, which must be a file that only its owner may read (of root's, also its group)", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, refuse("sslkey", "cannot be followed: %s", oneLine(err.Error()))
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return c.decrypted(path, block)
		}
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), nil
}

func (c *connection) decrypted(path string, block *pem.Block) ([]byte, error) {
	old := x509.IsEncryptedPEMBlock(block) //nolint:staticcheck // it is weak, but what the operator has
	if !old && block.Type != "ENCRYPTED PRIVATE KEY" {
		return pem.EncodeToMemory(block), nil
	}
	password := []byte(c.keywords["sslpassword"])
	if len(password) == 0 {
		return nil, refuse("sslpassword", "is not set, and the key in %s is encrypted", path)
	}
	decrypt := decryptPKCS8
	if old {
		decrypt = x509.DecryptPEMBlock //nolint:staticcheck // the same
	}
	der, err := decrypt(block, password)
	if _, malformed := asn1.Unmarshal(der, &asn1.RawValue{}); err == nil && malformed != nil {
		err = errPassword // its padding was right by chance
	}
	if err != nil {
		return nil, refuse("sslpassword", "does not decrypt the key in %s: %s", path, strings.TrimPrefix(err.Error(), "x509: "))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

var errPassword = errors.New("the password is wrong")

// errEncryption: pgrex decrypts what OpenSSL makes by default, and some more.
var errEncryption = errors.New("pgrex does not know its encryption; 'openssl pkcs8 -topk8 -v2 aes-256-cbc' uses one " +
	"that pgrex knows")
