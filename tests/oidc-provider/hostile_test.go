package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestSignMakesAnyToken(t *testing.T) {
	f := start(t)
	decode := func(part string) string {
		bytes, err := base64.RawURLEncoding.DecodeString(part)
		f.check(err)
		return string(bytes)
	}
	for _, algorithm := range algorithms {
		f.post("/keys", `{"algorithm": "`+algorithm+`", "kid": "`+algorithm+`"}`)
		token := f.post("/sign", `{"kid": "`+algorithm+`", "claims": {"a": 1}}`)
		jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
		f.check(err)
		keys := f.jwks()
		if payload, err := jws.Verify(keys[len(keys)-1]); err != nil || string(payload) != `{"a": 1}` {
			t.Errorf("%s: %s %v", algorithm, payload, err)
		}
	}

	// Another algorithm of the same key.
	token := f.post("/sign", `{"kid": "RS256", "header": {"alg": "PS384", "kid": "RS256"}, "claims": {}}`)
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.PS384})
	f.check(err)
	keys := f.jwks()
	if _, err := jws.Verify(keys[1]); err != nil {
		t.Error(err)
	}

	// What the key cannot do.
	parts := strings.Split(f.post("/sign", `{"kid": "ES256", "header": {"alg":"RS256","x":[1]}, "claims": [ 2 ]}`), ".")
	if decode(parts[0]) != `{"alg":"RS256","x":[1]}` || decode(parts[1]) != `[ 2 ]` || len(decode(parts[2])) != 64 {
		t.Error(parts)
	}

	token = f.post("/sign", `{"kid": "RS256", "header": {"alg":"none"}, "claims": {}}`)
	if !strings.HasSuffix(token, ".e30.") {
		t.Error(token)
	}

	var key struct{ PEM string }
	f.check(json.Unmarshal([]byte(f.post("/keys", `{"algorithm": "RS256", "kid": "pem"}`)), &key))
	token = f.post("/sign", `{"kid": "pem", "header": {"alg":"HS256"}, "claims": {}}`)
	end := strings.LastIndex(token, ".")
	mac := hmac.New(sha256.New, []byte(key.PEM))
	mac.Write([]byte(token[:end]))
	if !bytes.Equal(mac.Sum(nil), []byte(decode(token[end+1:]))) {
		t.Error(token)
	}
}

func TestJWKSShowsKeysAsTold(t *testing.T) {
	f := start(t)
	for _, key := range []string{
		`{"algorithm": "ES256", "kid": "a", "jwk": {"alg": null}}`,
		`{"algorithm": "RS256", "kid": "a", "jwk": {"use": "enc"}}`,
		`{"algorithm": "RS256", "kid": "small", "bits": 1024}`, `{"algorithm": "HS256", "kid": "oct"}`,
		`{"algorithm": "RS256", "kid": "hidden", "hidden": true}`,
	} {
		f.post("/keys", key)
	}
	keys := f.jwks()
	if len(keys) != 5 || keys[1].KeyID != "a" || keys[1].Algorithm != "" || keys[2].KeyID != "a" ||
		keys[2].Use != "enc" {
		t.Fatalf("%+v", keys)
	}
	if small, _ := keys[3].MarshalJSON(); len(small) > 300 {
		t.Errorf("%s", small)
	}
	if _, symmetric := keys[4].Key.([]byte); !symmetric {
		t.Errorf("%+v", keys[4])
	}
	f.post("/sign", `{"kid": "hidden", "claims": {}}`)

	f.post("/keys/a/activate", "{}")
	if status, _ := f.do("POST", f.Admin+"/keys/oct/activate", ""); status != http.StatusBadRequest {
		t.Error(status)
	}
	if status, _ := f.do("DELETE", f.Admin+"/keys/a", ""); status != http.StatusOK || len(f.jwks()) != 3 {
		t.Errorf("%d %+v", status, f.jwks())
	}
	if status, _ := f.do("DELETE", f.Admin+"/keys/a", ""); status != http.StatusNotFound {
		t.Error(status)
	}
}

func TestFaultsMakeAnswersHostile(t *testing.T) {
	f := start(t)
	ask := func(fault string) (int, string) {
		f.post("/faults", `{"jwks": "`+fault+`", "discoveryFields": {"issuer": "x", "jwks_uri": null}}`)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		request, _ := http.NewRequestWithContext(ctx, "GET", f.Issuer+"/keys", nil)
		response, err := f.client.Do(request)
		if err != nil {
			return 0, ""
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 20<<20))
		return response.StatusCode, string(body)
	}
	ok := http.StatusOK
	for fault, right := range map[string]func(int, string) bool{
		"":         func(status int, body string) bool { return status == ok && strings.HasPrefix(body, `{"keys":[{`) },
		"slow":     func(status int, body string) bool { return status == ok && strings.Trim(body, " ") == "" },
		"hang":     func(status int, body string) bool { return status == 0 },
		"endless":  func(status int, body string) bool { return len(body) == 20<<20 },
		"large":    func(status int, body string) bool { return len(body) > 10<<20 && json.Valid([]byte(body)) },
		"redirect": func(status int, body string) bool { return status == http.StatusFound },
		"500":      func(status int, body string) bool { return status == http.StatusInternalServerError },
		"html":     func(status int, body string) bool { return status == ok && strings.HasPrefix(body, "<!doctype") },
		"drop":     func(status int, body string) bool { return status == 0 },
	} {
		if status, body := ask(fault); !right(status, body) {
			t.Errorf("%s: %d, %d bytes, %.50s", fault, status, len(body), body)
		}
	}
	_, discovery := f.do("GET", f.Issuer+"/.well-known/openid-configuration", "")
	if !strings.Contains(discovery, `"issuer":"x"`) || strings.Contains(discovery, "jwks_uri") {
		t.Error(discovery)
	}
	f.post("/faults", `{"jwks": "redirect"}`)
	if status, _ := f.do("GET", f.Issuer+"/moved/keys", ""); status != 200 {
		t.Error(status)
	}
	f.post("/faults", `{"tokenAnswer": {"error": "no"}, "tokenStatus": 418}`)
	if status, body := f.do("POST", f.Issuer+"/oauth/token", ""); status != 418 || body != "{\"error\":\"no\"}\n" {
		t.Errorf("%d %s", status, body)
	}
	expected := "{\"discovery\":1,\"jwks\":10,\"token\":1,\"redirected\":1}\n"
	if _, counts := f.do("GET", f.Admin+"/requests", ""); counts != expected {
		t.Error(counts)
	}
	if status, _ := f.do("POST", f.Admin+"/faults", `{"jwks": "other"}`); status != http.StatusBadRequest {
		t.Error(status)
	}
}
