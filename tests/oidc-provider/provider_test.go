package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

const redirect = "http://127.0.0.1:1/callback"

// fixture is a running provider, with a user anna and a public client daypass.
type fixture struct {
	*testing.T
	ready
	// Trusts the provider, keeps cookies and follows no redirect.
	client *http.Client
}

func start(t *testing.T) *fixture {
	stdin, closeStdin := io.Pipe()
	output, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(stdin, stdout) }()
	f := &fixture{T: t}
	if err := json.NewDecoder(output).Decode(&f.ready); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closeStdin.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(f.CAFile); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", f.CAFile, err)
		}
	})
	ca, err := os.ReadFile(f.CAFile)
	f.check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	jar, _ := cookiejar.New(nil)
	f.client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true},
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	f.post("/users", `{"name": "anna", "sub": "1", "email": "anna@example.com", "emailVerified": false,
		"groups": ["platform", "on call"], "claims": {"department": "x"}, "authTime": 1000000000}`)
	f.post("/clients", `{"clientId": "daypass", "redirectUris": ["`+redirect+`"]}`)
	return f
}

func (f *fixture) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) do(method, url, body string) (int, string) {
	f.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	f.check(err)
	response, err := f.client.Do(request)
	f.check(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	f.check(err)
	return response.StatusCode, string(text)
}

// post asks the admin interface, which must accept.
func (f *fixture) post(path, body string) string {
	f.Helper()
	status, text := f.do("POST", f.Admin+path, body)
	if status != http.StatusOK {
		f.Fatalf("POST %s: %d %s", path, status, text)
	}
	return text
}

func (f *fixture) jwks() []jose.JSONWebKey {
	f.Helper()
	_, text := f.do("GET", f.Issuer+"/keys", "")
	set := jose.JSONWebKeySet{}
	f.check(json.Unmarshal([]byte(text), &set))
	return set.Keys
}

func (f *fixture) relyingParty(nonce string) rp.RelyingParty {
	f.Helper()
	scopes := []string{"openid", "profile", "email", "groups", "offline_access"}
	party, err := rp.NewRelyingPartyOIDC(context.Background(), f.Issuer, "daypass", "", redirect, scopes,
		rp.WithHTTPClient(f.client), rp.WithSigningAlgsFromDiscovery(),
		rp.WithVerifierOpts(rp.WithNonce(func(context.Context) string { return nonce })))
	f.check(err)
	return party
}

// code follows the redirects of a sign-in to the client's own, and returns its query.
func (f *fixture) code(url string) url.Values {
	f.Helper()
	for range 5 {
		response, err := f.client.Get(url)
		f.check(err)
		response.Body.Close()
		location, err := response.Location()
		f.check(err)
		if url = location.String(); strings.HasPrefix(url, redirect) {
			return location.Query()
		}
	}
	f.Fatal("too many redirects")
	return nil
}

type tokens = oidc.Tokens[*oidc.IDTokenClaims]

func (f *fixture) signIn(params ...string) *tokens {
	f.Helper()
	party, verifier := f.relyingParty("n"), strings.Repeat("v", 43)
	options := []rp.AuthURLOpt{rp.WithCodeChallenge(oidc.NewSHACodeChallenge(verifier))}
	for pair := range slices.Chunk(append(params, "nonce", "n"), 2) {
		options = append(options, rp.AuthURLOpt(rp.WithURLParam(pair[0], pair[1])))
	}
	query := f.code(rp.AuthURL("s", party, options...))
	if query.Get("state") != "s" {
		f.Fatalf("refused: %v", query)
	}
	signedIn, err := rp.CodeExchange[*oidc.IDTokenClaims](
		context.Background(), query.Get("code"), party, rp.WithCodeVerifier(verifier))
	f.check(err)
	return signedIn
}

func TestCodeFlowWorksWithEachAlgorithm(t *testing.T) {
	for _, algorithm := range algorithms {
		t.Run(algorithm, func(t *testing.T) {
			f := start(t)
			f.post("/keys", `{"algorithm": "`+algorithm+`", "active": true}`)
			signedIn := f.signIn("login_hint", "anna")
			claims := signedIn.IDTokenClaims
			if got := string(claims.SignatureAlg); got != algorithm {
				t.Errorf("signed by %s", got)
			}
			more := claims.Claims
			if claims.Subject != "1" || claims.AuthTime != 1000000000 || more["email"] != "anna@example.com" ||
				more["email_verified"] != false || len(more["groups"].([]any)) != 2 || more["department"] != "x" {
				t.Errorf("%+v", claims)
			}
			if parts := strings.Split(signedIn.AccessToken, "."); len(parts) != 3 {
				t.Errorf("access token: %s", signedIn.AccessToken)
			}
			party := f.relyingParty("")
			info, err := rp.Userinfo[*oidc.UserInfo](context.Background(), signedIn.AccessToken, "Bearer", "1", party)
			f.check(err)
			if info.Email != "anna@example.com" || info.Claims["department"] != "x" {
				t.Errorf("%+v", info)
			}
			refresh := signedIn.RefreshToken
			again, err := rp.RefreshTokens[*oidc.IDTokenClaims](context.Background(), party, refresh, "", "")
			f.check(err)
			if again.IDTokenClaims.AuthTime != claims.AuthTime || again.RefreshToken == refresh {
				t.Errorf("%+v", again)
			}
			if _, err := rp.RefreshTokens[*oidc.IDTokenClaims](context.Background(), party, refresh, "", ""); err == nil {
				t.Error("a refresh token works twice")
			}
		})
	}
}

func TestSignInIsRememberedUntilTheClientAsksForANewOne(t *testing.T) {
	f := start(t)
	f.signIn("login_hint", "anna")
	// By the cookie.
	if got := f.signIn().IDTokenClaims.AuthTime; got != 1000000000 {
		t.Errorf("auth_time: %d", got)
	}
	began := time.Now().Unix()
	if got := f.signIn("prompt", "login").IDTokenClaims.AuthTime; int64(got) < began {
		t.Errorf("auth_time: %d", got)
	}
	if got := f.signIn("login_hint", "anna").IDTokenClaims.AuthTime; int64(got) < began {
		t.Errorf("auth_time: %d", got)
	}
}

func TestCodeNeedsItsVerifier(t *testing.T) {
	f := start(t)
	party := f.relyingParty("")
	hint := rp.AuthURLOpt(rp.WithURLParam("login_hint", "anna"))
	query := f.code(rp.AuthURL("s", party, rp.WithCodeChallenge(oidc.NewSHACodeChallenge("a")), hint))
	verifier := rp.WithCodeVerifier("b")
	_, err := rp.CodeExchange[*oidc.IDTokenClaims](context.Background(), query.Get("code"), party, verifier)
	if err == nil {
		t.Error("another verifier works")
	}
}
