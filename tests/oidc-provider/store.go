package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

var errNotFound = errors.New("not found")

// store implements op.Storage in memory; keys.go has its keys.
type store struct {
	sync.Mutex
	counter  int
	users    map[string]*user // by name
	clients  map[string]*client
	keys     []*key
	active   *key
	requests map[string]*request // sign-ins by ID and by code
	tokens   map[string]*grant   // access tokens by ID
	refresh  map[string]*grant   // refresh tokens
}

func newStore() *store {
	return &store{
		users:    map[string]*user{},
		clients:  map[string]*client{},
		requests: map[string]*request{},
		tokens:   map[string]*grant{},
		refresh:  map[string]*grant{},
	}
}

func (s *store) next() int {
	s.counter++
	return s.counter
}

// grant is what somebody granted to a client. It implements op.RefreshTokenRequest.
type grant struct {
	subject, client  string
	audience, scopes []string
	authTime         time.Time
	expires          time.Time
}

func (g *grant) GetAMR() []string                 { return []string{"pwd"} }
func (g *grant) GetAudience() []string            { return g.audience }
func (g *grant) GetAuthTime() time.Time           { return g.authTime }
func (g *grant) GetClientID() string              { return g.client }
func (g *grant) GetScopes() []string              { return g.scopes }
func (g *grant) GetSubject() string               { return g.subject }
func (g *grant) SetCurrentScopes(scopes []string) { g.scopes = scopes }

// request is one sign-in. It implements op.AuthRequest.
type request struct {
	grant
	id string
	*oidc.AuthRequest
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetNonce() string                   { return r.Nonce }
func (r *request) GetRedirectURI() string             { return r.RedirectURI }
func (r *request) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }
func (r *request) GetState() string                   { return r.State }
func (r *request) Done() bool                         { return r.subject != "" }

func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

func find[T any](s *store, values map[string]*T, name string) (*T, error) {
	s.Lock()
	defer s.Unlock()
	if value := values[name]; value != nil {
		return value, nil
	}
	return nil, errNotFound
}

func (s *store) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	client, err := find(s, s.clients, asked.ClientID)
	if err != nil {
		return nil, err
	}
	given := grant{client: client.ID, audience: append([]string{client.ID}, client.Audiences...), scopes: asked.Scopes}
	created := &request{given, rand.Text(), asked}
	s.Lock()
	defer s.Unlock()
	s.requests[created.id] = created
	return created, nil
}

func (s *store) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	return find(s, s.requests, id)
}

func (s *store) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	return find(s, s.requests, code)
}

func (s *store) SaveAuthCode(_ context.Context, id, code string) error {
	s.Lock()
	defer s.Unlock()
	s.requests[code] = s.requests[id]
	return nil
}

// DeleteAuthRequest makes sure that a code works once.
func (s *store) DeleteAuthRequest(_ context.Context, id string) error {
	s.Lock()
	defer s.Unlock()
	for name, request := range s.requests {
		if request.id == id {
			delete(s.requests, name)
		}
	}
	return nil
}

func (s *store) CreateAccessToken(_ context.Context, asked op.TokenRequest) (string, time.Time, error) {
	given, err := grantOf(asked)
	if err != nil {
		return "", time.Time{}, err
	}
	client, err := find(s, s.clients, given.client)
	if err != nil {
		return "", time.Time{}, err
	}
	given.expires = time.Now().Add(client.lifetime())
	id := rand.Text()
	s.Lock()
	defer s.Unlock()
	s.tokens[id] = &given
	return id, given.expires, nil
}

func (s *store) CreateAccessAndRefreshTokens(
	ctx context.Context, asked op.TokenRequest, current string,
) (string, string, time.Time, error) {
	id, expires, err := s.CreateAccessToken(ctx, asked)
	if err != nil {
		return "", "", expires, err
	}
	given, err := grantOf(asked)
	refresh := rand.Text()
	s.Lock()
	defer s.Unlock()
	delete(s.refresh, current)
	s.refresh[refresh] = &given
	return id, refresh, expires, err
}

func grantOf(asked op.TokenRequest) (grant, error) {
	switch asked := asked.(type) {
	case *request:
		return asked.grant, nil
	case *grant:
		return *asked, nil
	}
	return grant{}, errors.New("no such grant type")
}

func (s *store) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	given, err := find(s, s.refresh, token)
	if err != nil {
		return nil, op.ErrInvalidRefreshToken
	}
	// A copy, since the library narrows its scopes.
	narrowed := *given
	return &narrowed, nil
}

// TerminateSession makes the user sign in anew.
func (s *store) TerminateSession(_ context.Context, subject, _ string) error {
	s.Lock()
	defer s.Unlock()
	if user := s.bySubject(subject); user != nil {
		user.AuthTime = 0
	}
	return nil
}

func (s *store) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	s.Lock()
	defer s.Unlock()
	delete(s.tokens, token)
	delete(s.refresh, token)
	return nil
}

func (s *store) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	given, err := find(s, s.refresh, token)
	if err != nil {
		return "", "", op.ErrInvalidRefreshToken
	}
	return given.subject, token, nil
}

func (s *store) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	return find(s, s.clients, id)
}

func (s *store) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	client, err := find(s, s.clients, id)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(client.Secret), []byte(secret)) != 1 {
		return errors.New("wrong client secret")
	}
	return nil
}

func (s *store) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotFound
}

func (s *store) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNotFound
}

func (s *store) Health(context.Context) error { return nil }
