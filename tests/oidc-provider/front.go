package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// faults makes the answers to discovery, for keys and for tokens hostile. The empty text is no fault; hostile lists
// the others.
type faults struct {
	Discovery string `json:"discovery"`
	JWKS      string `json:"jwks"`
	Token     string `json:"token"`
	// What the token endpoint answers instead, and its status, 200 by default.
	TokenAnswer map[string]any `json:"tokenAnswer"`
	TokenStatus int            `json:"tokenStatus"`
	// Members of the discovery document to set, or to remove by null.
	DiscoveryFields map[string]any `json:"discoveryFields"`
}

var knownFaults = []string{"", "slow", "hang", "endless", "large", "redirect", "500", "html", "drop"}

// front is the faults, and how often each document was asked for.
type front struct {
	sync.Mutex
	faults   faults
	requests requests
}

type requests struct {
	Discovery int `json:"discovery"`
	JWKS      int `json:"jwks"`
	Token     int `json:"token"`
	// How often a redirect was followed.
	Redirected int `json:"redirected"`
}

const movedPath = "/moved"

// ServeHTTP answers what the library should not, and passes on the rest.
func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, moved := strings.CutPrefix(r.URL.Path, movedPath)
	keysPath, tokenPath := p.op.KeysEndpoint().Relative(), p.op.TokenEndpoint().Relative()
	if path == loginPath {
		p.login(w, r)
		return
	}
	if path == tokenPath {
		p.token(moved, w, r)
		return
	}
	if path != oidc.DiscoveryEndpoint && path != keysPath {
		p.op.ServeHTTP(w, r)
		return
	}
	p.front.Lock()
	current, fault := p.front.faults, p.front.faults.JWKS
	if path == oidc.DiscoveryEndpoint {
		fault = current.Discovery
		p.front.requests.Discovery++
	} else {
		p.front.requests.JWKS++
	}
	if moved {
		p.front.requests.Redirected++
		fault = ""
	}
	p.front.Unlock()

	document, err := p.store.jwks()
	if path == oidc.DiscoveryEndpoint {
		ctx := op.ContextWithIssuer(r.Context(), p.issuer)
		document, err = overlay(op.CreateDiscoveryConfig(ctx, p.op, p.store), current.DiscoveryFields)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	hostile(fault, document, w, r)
}

// token answers for tokens, as the library does unless a fault or an answer is set.
func (p *provider) token(moved bool, w http.ResponseWriter, r *http.Request) {
	p.front.Lock()
	current := p.front.faults
	p.front.requests.Token++
	if moved {
		p.front.requests.Redirected++
	}
	p.front.Unlock()
	if current.Token == "" && current.TokenAnswer == nil {
		p.op.ServeHTTP(w, r)
		return
	}
	// The server notices that the client has gone once the form is read.
	r.ParseForm()
	if current.TokenAnswer == nil {
		current.TokenAnswer = map[string]any{}
	}
	if current.TokenStatus != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(current.TokenStatus)
	}
	hostile(current.Token, current.TokenAnswer, w, r)
}

// hostile answers with a document, or with what the fault makes of it.
func hostile(fault string, document map[string]any, w http.ResponseWriter, r *http.Request) {
	flush := func() { http.NewResponseController(w).Flush() }
	w.Header().Set("Content-Type", "application/json")
	switch fault {
	case "slow": // a space each second, and never the document
		for tick := time.Tick(time.Second); ; {
			w.Write([]byte(" "))
			flush()
			select {
			case <-tick:
			case <-r.Context().Done():
				return
			}
		}
	case "hang": // no answer at all
		<-r.Context().Done()
		return
	case "endless": // spaces without an end, as fast as the client reads
		for spaces := bytes.Repeat([]byte(" "), 1<<16); ; {
			if _, err := w.Write(spaces); err != nil {
				return
			}
		}
	case "large": // the document, but 10 MiB larger
		document["padding"] = strings.Repeat("x", 10<<20)
	case "redirect": // to a place that has the document
		http.Redirect(w, r, movedPath+r.URL.Path, http.StatusFound)
		return
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	case "html":
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><title>Sign in</title>"))
		return
	case "drop": // the connection ends without an answer
		panic(http.ErrAbortHandler)
	}
	json.NewEncoder(w).Encode(document)
}
