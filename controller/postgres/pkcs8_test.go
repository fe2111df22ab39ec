package postgres

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
)

// TestWrongKeyPassword: what a wrong password makes of a key ends in a padding that looks right once in sixteen
// times. It
// is a wrong password all the same.
func TestWrongKeyPassword(t *testing.T) {
	block := encrypted(t, "right")
	for i := range 200 {
		c := &connection{keywords: keywords{"sslpassword": fmt.Sprint("wrong", i)}}
		if _, err := c.decrypted("the file", block); err == nil || !strings.Contains(err.Error(), "sslpassword") {
			t.Fatalf("with the password wrong%d: %v", i, err)
		}
	}
	c := &connection{keywords: keywords{"sslpassword": "right"}}
	if _, err := c.decrypted("the file", block); err != nil {
		t.Error(err)
	}
}

// encrypted is a structure in place of a key, encrypted as PBES2 with one iteration.
func encrypted(t *testing.T, password string) *pem.Block {
	t.Helper()
	marshal := func(v any) []byte {
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	oid := func(text string) (id asn1.ObjectIdentifier) {
		for part := range strings.SplitSeq(text, ".") {
			var n int
			if _, err := fmt.Sscan(part, &n); err != nil {
				t.Fatal(err)
			}
			id = append(id, n)
		}
		return id
	}
	raw := func(v any) asn1.RawValue { return asn1.RawValue{FullBytes: marshal(v)} }
	salt, vector := []byte("salt"), make([]byte, aes.BlockSize)
	derived, err := pbkdf2.Key(sha1.New, password, salt, 1, 32)
	if err != nil {
		t.Fatal(err)
	}
	cipherOf, err := aes.NewCipher(derived)
	if err != nil {
		t.Fatal(err)
	}
	clearText := marshal(struct{ Name string }{"a key"})
	padding := aes.BlockSize - len(clearText)%aes.BlockSize
	for range padding {
		clearText = append(clearText, byte(padding))
	}
	cipher.NewCBCEncrypter(cipherOf, vector).CryptBlocks(clearText, clearText)
	scheme := pbes2{
		Derivation: pkix.AlgorithmIdentifier{Algorithm: oid(oidPBKDF2), Parameters: raw(struct {
			Salt       []byte
			Iterations int
		}{salt, 1})},
		Encryption: pkix.AlgorithmIdentifier{Algorithm: oid("2.16.840.1.101.3.4.1.42"), Parameters: raw(vector)},
	}
	return &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: marshal(encryptedKey{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oid(oidPBES2), Parameters: raw(scheme)}, Data: clearText,
	})}
}
