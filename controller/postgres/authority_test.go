package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rootAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return selfSignedAuthority(t, name, 0)
}

// selfSignedAuthority may have a further usage.
func selfSignedAuthority(t *testing.T, name string, usage x509.KeyUsage) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), serial: 1}
	template := authorityTemplate(name)
	template.KeyUsage |= usage
	a.certificate = a.sign(template, template, &a.key.PublicKey, a.key)
	return a
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// below is an authority that this one has signed.
func (a *authority) below(name string) *authority {
	lower := &authority{t: a.t, key: newKey(a.t), serial: 1000}
	lower.certificate = a.sign(authorityTemplate(name), a.certificate, &lower.key.PublicKey, a.key)
	return lower
}

func (a *authority) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate
}

// leaf is a certificate for a server or a client, with the key that goes with it.
type leaf struct {
	certificate *x509.Certificate
	chain, key  []byte // PEM
}

// issue signs a certificate. above is sent with it.
func (a *authority) issue(template *x509.Certificate, above ...*authority) leaf {
	a.t.Helper()
	key := newKey(a.t)
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	certificate := a.sign(template, a.certificate, &key.PublicKey, a.key)
	chain := inPEM("CERTIFICATE", certificate.Raw)
	for _, up := range above {
		chain = append(chain, up.pem()...)
	}
	return leaf{certificate, chain, inPEM("PRIVATE KEY", pkcs8(a.t, key))}
}

// named is for a server with a common name and alternative names, addresses among them.
func (a *authority) named(common string, names ...string) leaf {
	a.t.Helper()
	return a.issue(nameTemplate(common, names...))
}

func nameTemplate(common string, names ...string) *x509.Certificate {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: common}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}

func (a *authority) pem() []byte { return inPEM("CERTIFICATE", a.certificate.Raw) }

// revokes is a list of revoked certificates, valid from an hour ago until a time from now.
func (a *authority) revokes(until time.Duration, revoked ...leaf) []byte {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(until)}
	for _, l := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: l.certificate.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return inPEM("X509 CRL", der)
}

func pkcs8(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
