package postgres

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// tlsError is why a server is not trusted.
type tlsError struct{ error }

func (e tlsError) Unwrap() error { return e.error }

// tlsConfig returns the TLS configuration for one server. It reads the files each time, as libpq does: certificates are
// renewed.
func (c *connection) tlsConfig(e endpoint) (*tls.Config, error) {
	lowest, highest, err := c.tlsVersions()
	if err != nil {
		return nil, err
	}
	trusted, err := c.trust()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: lowest, MaxVersion: highest,
		InsecureSkipVerify: true, //nolint:gosec // Go would look for the name in other places than libpq: VerifyConnection does it all
	}
	if strings.HasPrefix(c.keywords["sslsni"], "1") && strings.Trim(e.host, "0123456789.") != "" && !strings.Contains(e.host, ":") {
		config.ServerName = e.host
	}
	if c.keywords["sslnegotiation"] == directTLS {
		config.NextProtos = []string{"postgresql"}
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		switch {
		case len(config.NextProtos) > 0 && state.NegotiatedProtocol != config.NextProtos[0]:
			return tlsError{errors.New("the server does not agree upon PostgreSQL's protocol (ALPN), which sslnegotiation=direct demands")}
		case trusted == nil:
			return nil
		}
		if err := trusted.verify(state.PeerCertificates); err != nil {
			return tlsError{err}
		}
		if c.keywords["sslmode"] != sslVerifyFull {
			return nil
		}
		if err := isFor(state.PeerCertificates[0], e.host); err != nil {
			return tlsError{err}
		}
		return nil
	}
	certificate, err := c.certificate()
	if err != nil {
		return nil, err
	}
	if certificate != nil { // whatever authorities the server names, as libpq does
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	return config, nil
}

// trust is what a server's certificate is verified against.
type trust struct {
	roots, others *x509.CertPool
	lists         *revocation // nil: revocation is not looked at
}

// trust reads sslrootcert and the revocation lists. It returns nil, and no certificate is verified, if there is no
// file; with verify-ca and verify-full that is an error. If the file exists, it counts with every sslmode.
func (c *connection) trust() (*trust, error) {
	const keyword = "sslrootcert"
	if c.keywords[keyword] == systemRoots { // revocation lists are not looked at then
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, refuse(keyword, "cannot be followed: %s", oneLine(err.Error()))
		}
		return &trust{roots: roots, others: x509.NewCertPool()}, nil
	}
	path, err := c.file(keyword, ".postgresql/root.crt")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	switch {
	case notThere(err) && strings.HasPrefix(c.keywords["sslmode"], "verify-"):
		return nil, refuse(keyword, "leads to %q, which does not exist, and sslmode=%s demands it", path, c.keywords["sslmode"])
	case notThere(err):
		return nil, nil
	case err != nil: // PostgreSQL may be able to read it
		return nil, refuse(keyword, "cannot be followed: %s", oneLine(err.Error()))
	}
	t := &trust{roots: x509.NewCertPool(), others: x509.NewCertPool()}
	found := false
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refuse(keyword, "cannot be followed: %s: %s", path, oneLine(err.Error()))
		}
		found = true
		if selfSigned(certificate) {
			t.roots.AddCert(certificate)
		} else { // it is on the way to a root, and none itself
			t.others.AddCert(certificate)
		}
	}
	if !found {
		return nil, refuse(keyword, "leads to %s, which has no certificate", path)
	}
	t.lists, err = c.revocation()
	return t, err
}

func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// selfSigned reports whether a certificate names itself as its issuer, by name and by key identifier.
func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && (len(c.AuthorityKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}

// verify follows the server's certificate to a root.
func (t *trust) verify(certificates []*x509.Certificate) error {
	if len(certificates) == 0 {
		return errors.New("the server has no certificate")
	}
	others := t.others.Clone()
	for _, c := range certificates[1:] {
		others.AddCert(c)
	}
	chains, err := certificates[0].Verify(x509.VerifyOptions{Roots: t.roots, Intermediates: others})
	if err != nil {
		return fmt.Errorf("the server's certificate is refused: %s", strings.TrimPrefix(oneLine(err.Error()), "x509: "))
	}
	for _, chain := range chains {
		if err = errors.Join(fitsServer(chain), t.lists.check(chain)); err == nil {
			return nil
		}
	}
	return err
}

// fitsServer refuses what Go lets pass and OpenSSL does not: certificates for other purposes than a server's.
func fitsServer(chain []*x509.Certificate) error {
	const forTLS = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
	if usage := chain[0].KeyUsage; usage != 0 && usage&forTLS == 0 {
		return errors.New("the server's certificate is refused: its key usage is not for TLS")
	}
	for _, c := range chain {
		fits := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0
		for _, usage := range c.ExtKeyUsage {
			fits = fits || usage == x509.ExtKeyUsageServerAuth ||
				usage == x509.ExtKeyUsageNetscapeServerGatedCrypto || usage == x509.ExtKeyUsageMicrosoftServerGatedCrypto
		}
		if !fits {
			return fmt.Errorf("the server's certificate is refused: the extended key usage of %s is not for servers", nameOf(c))
		}
	}
	return nil
}

func nameOf(c *x509.Certificate) string { return fmt.Sprintf("%q", c.Subject.String()) }

// isFor returns an error if a certificate is not for a host, as in libpq (PostgreSQL documentation, "Client
// Verification of Server Certificates"): by its alternative names, or by its common name where it has no alternative
// name of the host's kind.
func isFor(c *x509.Certificate, host string) error {
	if host == "" {
		return refuse("host", "is not set, and sslmode=verify-full verifies that name")
	}
	address := net.ParseIP(host)
	for _, ip := range c.IPAddresses {
		if address != nil && ip.Equal(address) {
			return nil
		}
	}
	names, common := c.DNSNames, len(c.DNSNames) == 0
	if address != nil {
		common = len(c.IPAddresses) == 0
	}
	if common {
		names = append(names[:len(names):len(names)], commonName(c)...)
	}
	for _, name := range names {
		if matches(name, host) {
			return nil
		}
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return fmt.Errorf("the server's certificate is not for the host %q: it is for %q", host, names)
}

// commonName returns the first common name, if there is any.
func commonName(c *x509.Certificate) []string {
	for _, attribute := range c.Subject.Names {
		if text, ok := attribute.Value.(string); ok && attribute.Type.String() == "2.5.4.3" {
			return []string{text}
		}
	}
	return nil
}

// matches reports whether a certificate's name is a host's. A star matches one label, and only at the beginning.
func matches(name, host string) bool {
	name, host = lower(name), lower(host)
	if name == host {
		return true
	}
	rest, wild := strings.CutPrefix(name, "*")
	if !wild || !strings.HasPrefix(rest, ".") || len(name) < 3 || len(name) > len(host) {
		return false
	}
	label, found := strings.CutSuffix(host, rest)
	return found && !strings.Contains(label, ".")
}

// lower changes ASCII only: no other letter is one of a host's name.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r - 'A' + 'a'
		}
		return r
	}, text)
}
