package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// admin returns the admin interface. Bodies are JSON; an unknown field is an error.
//
//	POST   /users                {"name": "anna", …}          as users.go has it; replaces the user of that name
//	DELETE /users/{name}
//	POST   /clients              {"clientId": "daypass", …}   as client.go has it; replaces the client of that ID
//	POST   /keys                 {"algorithm": "ES256", …}    as keys.go has it → {"id", "kid", "pem", "jwk"}
//	POST   /keys/{key}/activate                               makes it sign; by id, else the newest with that kid
//	DELETE /keys/{key}                                        by id, else all with that kid
//	POST   /sign                 {"kid", "header", "claims"}  → a compact JWT, as text
//	POST   /faults               {"jwks": "slow", …}          as front.go has it; replaces all faults
//	GET    /requests             → {"discovery", "jwks", "token", "redirected"}, how often each was asked for
func (p *provider) admin() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, handler func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := handler(r)
			switch text, isText := answer.(string); {
			case errors.Is(err, errNotFound):
				http.Error(w, err.Error(), http.StatusNotFound)
			case err != nil:
				http.Error(w, err.Error(), http.StatusBadRequest)
			case isText:
				io.WriteString(w, text)
			default:
				w.Header().Set("Content-Type", "application/json")
				json.NewEncoder(w).Encode(answer)
			}
		})
	}
	handle("POST /users", p.postUser)
	handle("DELETE /users/{name}", p.deleteUser)
	handle("POST /clients", p.postClient)
	handle("POST /keys", p.postKey)
	handle("POST /keys/{key}/activate", func(r *http.Request) (any, error) {
		return none, p.store.activate(r.PathValue("key"))
	})
	handle("DELETE /keys/{key}", func(r *http.Request) (any, error) {
		return none, p.store.removeKey(r.PathValue("key"))
	})
	handle("POST /sign", p.postSign)
	handle("POST /faults", p.postFaults)
	handle("GET /requests", func(*http.Request) (any, error) {
		p.front.Lock()
		defer p.front.Unlock()
		return p.front.requests, nil
	})
	return mux
}

// The answer that says nothing.
var none = struct{}{}

func read(r *http.Request, into any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func (p *provider) postUser(r *http.Request) (any, error) {
	user := &user{}
	if err := read(r, user); err != nil {
		return nil, err
	}
	if user.Name == "" {
		return nil, errors.New("name is missing")
	}
	if user.Subject == "" {
		user.Subject = user.Name
	}
	p.store.Lock()
	defer p.store.Unlock()
	if other := p.store.bySubject(user.Subject); other != nil && other.Name != user.Name {
		return nil, fmt.Errorf("%s has the sub %q", other.Name, user.Subject)
	}
	p.store.users[user.Name] = user
	// A copy, since a sign-in changes the user.
	return *user, nil
}

func (p *provider) deleteUser(r *http.Request) (any, error) {
	p.store.Lock()
	defer p.store.Unlock()
	if p.store.users[r.PathValue("name")] == nil {
		return nil, errNotFound
	}
	delete(p.store.users, r.PathValue("name"))
	return none, nil
}

func (p *provider) postClient(r *http.Request) (any, error) {
	client := &client{}
	if err := read(r, client); err != nil {
		return nil, err
	}
	if client.ID == "" {
		return nil, errors.New("clientId is missing")
	}
	p.store.Lock()
	defer p.store.Unlock()
	p.store.clients[client.ID] = client
	return client, nil
}

func (p *provider) postKey(r *http.Request) (any, error) {
	request := keyRequest{}
	if err := read(r, &request); err != nil {
		return nil, err
	}
	key, err := p.store.addKey(request)
	if err != nil {
		return nil, err
	}
	jwk, err := key.jwk()
	return map[string]any{"id": key.id, "kid": key.KID, "pem": string(key.pem()), "jwk": jwk}, err
}

func (p *provider) postSign(r *http.Request) (any, error) {
	var asked struct {
		// Of a key: its id, else the newest with this kid.
		KID string `json:"kid"`
		// By default {"alg", "kid", "typ": "JWT"} of the key. Where `alg` is an HMAC, the PEM of the public key is the
		// secret (an `oct` key uses its own); where it is `none`, the signature is empty.
		Header json.RawMessage `json:"header"`
		Claims json.RawMessage `json:"claims"`
	}
	if err := read(r, &asked); err != nil {
		return nil, err
	}
	if asked.Claims == nil {
		return nil, errors.New("claims are missing")
	}
	key, err := p.store.key(asked.KID)
	if err != nil {
		return nil, err
	}
	return key.token(asked.Header, asked.Claims)
}

func (p *provider) postFaults(r *http.Request) (any, error) {
	faults := faults{}
	if err := read(r, &faults); err != nil {
		return nil, err
	}
	for _, fault := range []string{faults.Discovery, faults.JWKS, faults.Token} {
		if !slices.Contains(knownFaults, fault) {
			return nil, fmt.Errorf("unknown fault: %q", fault)
		}
	}
	p.front.Lock()
	defer p.front.Unlock()
	p.front.faults = faults
	return none, nil
}
