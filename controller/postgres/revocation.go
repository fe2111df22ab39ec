package postgres

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// revocation has the lists of revoked certificates. With it, every certificate of a chain needs a list of its issuer.
type revocation struct{ lists []*x509.RevocationList }

// revocation reads sslcrl and sslcrldir; nil means that revocation is not checked. As in libpq, that is so if the file
// of sslcrl is missing or not PEM. With a folder only, revocation is always checked.
func (c *connection) revocation() (*revocation, error) {
	folder := c.keywords["sslcrldir"]
	r := &revocation{}
	if file := c.keywords["sslcrl"]; file != "" || folder == "" {
		path, err := c.file("sslcrl", ".postgresql/root.crl")
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(path)
		switch {
		case notThere(err):
			return nil, nil
		case err != nil:
			return nil, refuse("sslcrl", "cannot be followed: %s", oneLine(err.Error()))
		}
		if found, err := r.add(text); err != nil || !found {
			return nil, err
		}
	}
	if folder == "" {
		return r, nil
	}
	if _, err := c.file("sslcrldir", ""); err != nil {
		return nil, err
	}
	return r, r.addFolder(folder)
}

// hashed is how libpq finds a list: under the hash of its issuer's name.
var hashed = regexp.MustCompile(`^[0-9a-f]{8}\.r[0-9]+$`)

func (r *revocation) addFolder(folder string) error {
	files, err := os.ReadDir(folder)
	if err != nil && !notThere(err) {
		return refuse("sslcrldir", "cannot be followed: %s", oneLine(err.Error()))
	}
	for _, f := range files {
		if !hashed.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil {
			return refuse("sslcrldir", "cannot be followed: %s", oneLine(err.Error()))
		}
		if _, err := r.add(text); err != nil {
			return err
		}
	}
	return nil
}

// add adds the lists in a file. found reports whether the file has anything that OpenSSL reads there.
func (r *revocation) add(text []byte) (found bool, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		found = found || block.Type == "CERTIFICATE" || block.Type == "X509 CRL"
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return false, refuse("sslcrl", "or sslcrldir cannot be followed: %s", oneLine(err.Error()))
		}
		r.lists = append(r.lists, list)
	}
	return found, nil
}

// check refuses a chain in which a certificate is revoked, or may be.
func (r *revocation) check(chain []*x509.Certificate) error {
	if r == nil {
		return nil
	}
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)] // a root is its own
		list, err := r.of(issuer)
		if err != nil {
			return fmt.Errorf("the server's certificate is refused: whether %s is revoked is not known: %w", nameOf(c), err)
		}
		if slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 }) {
			return fmt.Errorf("the server's certificate is refused: %s is revoked by %s", nameOf(c), nameOf(issuer))
		}
	}
	return nil
}

// of returns the newest valid list of an issuer.
func (r *revocation) of(issuer *x509.Certificate) (newest *x509.RevocationList, err error) {
	err = fmt.Errorf("sslcrl and sslcrldir have no list of %s", nameOf(issuer))
	now := time.Now()
	for _, list := range r.lists {
		switch {
		case !bytes.Equal(list.RawIssuer, issuer.RawSubject) || list.CheckSignatureFrom(issuer) != nil:
		case slices.ContainsFunc(list.Extensions, func(e pkix.Extension) bool { return e.Critical }):
			err = errors.New("its list is only of a part, or of changes, which pgrex cannot follow")
		case now.Before(list.ThisUpdate) || !list.NextUpdate.IsZero() && now.After(list.NextUpdate):
			err = fmt.Errorf("its list in sslcrl or sslcrldir is not valid at this time, but from %s to %s",
				list.ThisUpdate.Format(time.RFC3339), list.NextUpdate.Format(time.RFC3339))
		case newest == nil || list.ThisUpdate.After(newest.ThisUpdate):
			newest = list
		}
	}
	if newest != nil {
		err = nil
	}
	return newest, err
}
