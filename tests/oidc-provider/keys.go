package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The asymmetric algorithms.
var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// keyRequest describes a new key.
type keyRequest struct {
	// An asymmetric one, or HS256 for an `oct` key.
	Algorithm string `json:"algorithm"`
	// The key's id by default. Several keys may have the same.
	KID string `json:"kid"`
	// The size of an RSA key, 2048 by default.
	Bits int `json:"bits"`
	// Sign with it from now on.
	Active bool `json:"active"`
	// Leave it out of the JWKS.
	Hidden bool `json:"hidden"`
	// Members of its JWK to set, or to remove by null: {"alg": null}, {"use": "enc"}.
	JWK map[string]any `json:"jwk"`
}

type key struct {
	keyRequest
	// Unique, unlike the kid.
	id string
	// []byte if it is symmetric.
	private any
}

func newKey(request keyRequest, id string) (*key, error) {
	if request.KID == "" {
		request.KID = id
	}
	if request.Bits == 0 {
		request.Bits = 2048
	}
	private, err := generate(request.Algorithm, request.Bits)
	return &key{request, id, private}, err
}

func generate(algorithm string, bits int) (any, error) {
	switch algorithm {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return rsa.GenerateKey(rand.Reader, bits)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case "HS256":
		secret := make([]byte, 32)
		_, err := rand.Read(secret)
		return secret, err
	}
	return nil, fmt.Errorf("unknown algorithm: %q", algorithm)
}

func (k *key) symmetric() bool {
	_, symmetric := k.private.([]byte)
	return symmetric
}

// public returns the public key, or the secret of a symmetric one.
func (k *key) public() any {
	if signer, ok := k.private.(crypto.Signer); ok {
		return signer.Public()
	}
	return k.private
}

// pem returns the public key in PEM, or nil for a symmetric one.
func (k *key) pem() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.public())
	if err != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// jwk returns the key as the JWKS shows it.
func (k *key) jwk() (map[string]any, error) {
	return overlay(jose.JSONWebKey{Key: k.public(), KeyID: k.KID, Algorithm: k.Algorithm, Use: "sig"}, k.JWK)
}

// overlay returns the JSON object of a value with some members set. Null removes one.
func overlay(value any, members map[string]any) (map[string]any, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	object := map[string]any{}
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, err
	}
	for name, value := range members {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = value
		}
	}
	return object, nil
}

func (s *store) addKey(request keyRequest) (*key, error) {
	s.Lock()
	id := fmt.Sprintf("%s-%d", request.Algorithm, s.next())
	s.Unlock()
	key, err := newKey(request, id)
	if err != nil {
		return nil, err
	}
	if request.Active && key.symmetric() {
		return nil, errors.New("a symmetric key cannot be active")
	}
	s.Lock()
	defer s.Unlock()
	s.keys = append(s.keys, key)
	if request.Active {
		s.active = key
	}
	return key, nil
}

// key returns the key with this id, else the newest with this kid.
func (s *store) key(name string) (*key, error) {
	s.Lock()
	defer s.Unlock()
	var found *key
	for _, key := range s.keys {
		if key.id == name {
			return key, nil
		}
		if key.KID == name {
			found = key
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no key %q: %w", name, errNotFound)
	}
	return found, nil
}

func (s *store) activate(name string) error {
	key, err := s.key(name)
	if err != nil {
		return err
	}
	if key.symmetric() {
		return errors.New("a symmetric key cannot be active")
	}
	s.Lock()
	defer s.Unlock()
	s.active = key
	return nil
}

// removeKey removes the key with this id, else all with this kid. The active key still signs when it is removed.
func (s *store) removeKey(name string) error {
	one, err := s.key(name)
	if err != nil {
		return err
	}
	s.Lock()
	defer s.Unlock()
	s.keys = slices.DeleteFunc(s.keys, func(key *key) bool {
		return key == one || one.id != name && key.KID == name
	})
	return nil
}

// jwks returns the JWKS.
func (s *store) jwks() (map[string]any, error) {
	s.Lock()
	defer s.Unlock()
	keys := []any{}
	for _, key := range s.keys {
		if key.Hidden {
			continue
		}
		jwk, err := key.jwk()
		if err != nil {
			return nil, err
		}
		keys = append(keys, jwk)
	}
	return map[string]any{"keys": keys}, nil
}

// What the library needs of a key that signs, and of one that verifies.
type (
	signingKey struct{ *key }
	publicKey  struct{ *key }
)

func (k signingKey) ID() string { return k.KID }
func (k signingKey) Key() any   { return k.private }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm {
	return jose.SignatureAlgorithm(k.Algorithm)
}
func (k publicKey) ID() string { return k.KID }
func (k publicKey) Key() any   { return k.public() }
func (k publicKey) Algorithm() jose.SignatureAlgorithm {
	return jose.SignatureAlgorithm(k.key.Algorithm)
}
func (k publicKey) Use() string { return "sig" }

// SigningKey implements op.Storage.
func (s *store) SigningKey(context.Context) (op.SigningKey, error) {
	s.Lock()
	defer s.Unlock()
	return signingKey{s.active}, nil
}

// SignatureAlgorithms implements op.Storage: the algorithms that discovery names.
func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	s.Lock()
	defer s.Unlock()
	names := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(s.active.Algorithm)}
	for _, key := range s.keys {
		name := jose.SignatureAlgorithm(key.Algorithm)
		if !key.Hidden && !key.symmetric() && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// KeySet implements op.Storage. The library verifies its own access tokens with it.
func (s *store) KeySet(context.Context) ([]op.Key, error) {
	s.Lock()
	defer s.Unlock()
	// The library takes the first with the right kid.
	keys := []op.Key{publicKey{s.active}}
	for _, key := range s.keys {
		if !key.Hidden && !key.symmetric() {
			keys = append(keys, publicKey{key})
		}
	}
	return keys, nil
}
