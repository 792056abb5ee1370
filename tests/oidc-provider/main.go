// Command oidc-provider is an OpenID provider for tests: a real one, with users, clients and keys in memory, that can
// also sign any token and give hostile answers.
//
// It prints one line when it is ready, and ends when its stdin closes. admin.go has the admin interface.
//
//	{"issuer": "https://127.0.0.1:1", "caFile": "…", "admin": "http://127.0.0.1:2"}
package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	// The library reports each refused request, and tests cause many.
	slog.SetLogLoggerLevel(slog.LevelError)
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// ready is the line that says where everything is.
type ready struct {
	Issuer string `json:"issuer"`
	CAFile string `json:"caFile"`
	Admin  string `json:"admin"`
}

func run(stdin io.Reader, stdout io.Writer) error {
	folder, err := os.MkdirTemp("", "oidc-provider-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	ca, certificate, err := newCertificate()
	if err != nil {
		return err
	}
	caFile := filepath.Join(folder, "ca.crt")
	if err := os.WriteFile(caFile, ca, 0o644); err != nil {
		return err
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	where := ready{"https://" + secure.Addr().String(), caFile, "http://" + plain.Addr().String()}
	provider, err := newProvider(where.Issuer)
	if err != nil {
		return err
	}

	public := http.Server{Handler: provider, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	admin := http.Server{Handler: provider.admin()}
	go public.ServeTLS(secure, "", "")
	go admin.Serve(plain)
	defer public.Close()
	defer admin.Close()
	if err := json.NewEncoder(stdout).Encode(where); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

// provider is the library's provider, with a sign-in page and hostile answers in front of it.
type provider struct {
	issuer string
	op     *op.Provider
	store  *store
	front  front
}

func newProvider(issuer string) (*provider, error) {
	store := newStore()
	if _, err := store.addKey(keyRequest{Algorithm: "RS256", Active: true}); err != nil {
		return nil, err
	}
	config := &op.Config{
		CodeMethodS256:        true,
		AuthMethodPost:        true,
		GrantTypeRefreshToken: true,
		SupportedScopes:       []string{"openid", "profile", "email", "groups", "offline_access"},
	}
	rand.Read(config.CryptoKey[:])
	library, err := op.NewProvider(config, store, op.StaticIssuer(issuer),
		// Those of its own tokens: only RS256 by default.
		op.WithAccessTokenVerifierOpts(op.WithSupportedAccessTokenSigningAlgorithms(algorithms...)),
		op.WithIDTokenHintVerifierOpts(op.WithSupportedIDTokenHintSigningAlgorithms(algorithms...)))
	if err != nil {
		return nil, err
	}
	return &provider{issuer: issuer, op: library, store: store}, nil
}
