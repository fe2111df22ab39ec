package postgres

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // of older keys
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"hash"
)

// The structures of an encrypted key (RFC 5958, RFC 8018: PBES2 with PBKDF2).
type (
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2 struct {
		Derivation, Encryption pkix.AlgorithmIdentifier
	}
	pbkdf2Parameters struct {
		Salt       []byte
		Iterations int
		Length     int                      `asn1:"optional"`
		Hash       pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
)

// hashes of PBKDF2's HMAC; without one it is SHA-1.
var hashes = map[string]func() hash.Hash{
	"": sha1.New, "1.2.840.113549.2.7": sha1.New, "1.2.840.113549.2.9": sha256.New,
	"1.2.840.113549.2.10": sha512.New384, "1.2.840.113549.2.11": sha512.New,
}

// keyLengths are those of AES in CBC mode.
var keyLengths = map[string]int{
	"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32,
}

// decryptPKCS8 decrypts a key in PKCS #8.
func decryptPKCS8(block *pem.Block, password []byte) ([]byte, error) {
	const mostIterations = 10_000_000 // a file must not keep pgrex busy for ever
	var key encryptedKey
	var scheme pbes2
	var derivation pbkdf2Parameters
	var vector []byte
	_, err := asn1.Unmarshal(block.Bytes, &key)
	if err != nil || key.Algorithm.Algorithm.String() != oidPBES2 {
		return nil, errEncryption
	}
	if _, err := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &scheme); err != nil || scheme.Derivation.Algorithm.String() != oidPBKDF2 {
		return nil, errEncryption
	}
	_, errDerivation := asn1.Unmarshal(scheme.Derivation.Parameters.FullBytes, &derivation)
	_, errVector := asn1.Unmarshal(scheme.Encryption.Parameters.FullBytes, &vector)
	newHash, length := hashes[derivation.Hash.Algorithm.String()], keyLengths[scheme.Encryption.Algorithm.String()]
	if errors.Join(errDerivation, errVector) != nil || newHash == nil || length == 0 || len(vector) != aes.BlockSize ||
		len(key.Data) == 0 || len(key.Data)%aes.BlockSize != 0 || derivation.Iterations < 1 || derivation.Iterations > mostIterations {
		return nil, errEncryption
	}
	derived, err := pbkdf2.Key(newHash, string(password), derivation.Salt, derivation.Iterations, length)
	if err != nil {
		return nil, err
	}
	aesKey, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	clear := make([]byte, len(key.Data))
	cipher.NewCBCDecrypter(aesKey, vector).CryptBlocks(clear, key.Data)
	padding := int(clear[len(clear)-1])
	if padding < 1 || padding > aes.BlockSize {
		return nil, errPassword
	}
	return clear[:len(clear)-padding], nil
}
