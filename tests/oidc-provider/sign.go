package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// token returns a compact JWT of these very bytes. Its signature is what `alg` of the header says if the key can make
// that, else what the key makes.
func (k *key) token(header, claims json.RawMessage) (string, error) {
	if header == nil {
		var err error
		if header, err = json.Marshal(map[string]string{"alg": k.Algorithm, "kid": k.KID, "typ": "JWT"}); err != nil {
			return "", err
		}
	}
	var told struct {
		Algorithm any `json:"alg"`
	}
	if err := json.Unmarshal(header, &told); err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	algorithm, _ := told.Algorithm.(string)
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(header) + "." + encode(claims)
	if strings.EqualFold(algorithm, "none") {
		return input + ".", nil
	}
	signature, err := k.sign(k.fitting(algorithm), []byte(input))
	return input + "." + encode(signature), err
}

// fitting returns the algorithm if this key can sign by it, else the key's own.
func (k *key) fitting(algorithm string) string {
	if len(algorithm) != 5 || hashes[algorithm[2:]] == 0 {
		return k.Algorithm
	}
	fits := algorithm[:2] == "HS"
	switch k.private.(type) {
	case *rsa.PrivateKey:
		fits = fits || algorithm[:2] == "RS" || algorithm[:2] == "PS"
	case *ecdsa.PrivateKey:
		fits = fits || algorithm[:2] == "ES"
	}
	if fits {
		return algorithm
	}
	return k.Algorithm
}

func (k *key) sign(algorithm string, input []byte) ([]byte, error) {
	if private, ok := k.private.(ed25519.PrivateKey); ok && algorithm == "EdDSA" {
		return ed25519.Sign(private, input), nil
	}
	hash := hashes[algorithm[2:]]
	if algorithm[:2] == "HS" {
		// The well-known attack: the public key is the secret.
		secret := k.pem()
		if own, ok := k.private.([]byte); ok {
			secret = own
		}
		mac := hmac.New(hash.New, secret)
		mac.Write(input)
		return mac.Sum(nil), nil
	}
	hasher := hash.New()
	hasher.Write(input)
	digest := hasher.Sum(nil)
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		if algorithm[:2] == "PS" {
			return rsa.SignPSS(rand.Reader, private, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(rand.Reader, private, hash, digest)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, digest)
		if err != nil {
			return nil, err
		}
		size := (private.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), nil
	}
	return nil, fmt.Errorf("cannot sign by %s", algorithm)
}
