package main

import (
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// client implements op.Client. Without a secret it is a public client, which needs PKCE and may use any port of its
// loopback redirects.
type client struct {
	ID        string   `json:"clientId"`
	Secret    string   `json:"clientSecret"`
	Redirects []string `json:"redirectUris"`
	// In the tokens beside the client's ID.
	Audiences []string `json:"audiences"`
	// Access tokens are JWTs unless this is set.
	OpaqueAccessTokens bool `json:"opaqueAccessTokens"`
	// The lifetime of ID tokens and access tokens, 300 by default.
	LifetimeSeconds int `json:"lifetimeSeconds"`
}

func (c *client) GetID() string                        { return c.ID }
func (c *client) RedirectURIs() []string               { return c.Redirects }
func (c *client) PostLogoutRedirectURIs() []string     { return c.Redirects }
func (c *client) LoginURL(request string) string       { return loginPath + "?id=" + request }
func (c *client) IDTokenLifetime() time.Duration       { return c.lifetime() }
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c *client) ClockSkew() time.Duration             { return 0 }
func (c *client) IsScopeAllowed(scope string) bool     { return scope == "groups" }

// DevMode permits http:// redirects.
func (c *client) DevMode() bool { return true }

func (c *client) ApplicationType() op.ApplicationType {
	if c.Secret == "" {
		return op.ApplicationTypeNative
	}
	return op.ApplicationTypeWeb
}

func (c *client) AuthMethod() oidc.AuthMethod {
	if c.Secret == "" {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}

func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}

func (c *client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}

func (c *client) AccessTokenType() op.AccessTokenType {
	if c.OpaqueAccessTokens {
		return op.AccessTokenTypeBearer
	}
	return op.AccessTokenTypeJWT
}

func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c *client) lifetime() time.Duration {
	if c.LifetimeSeconds == 0 {
		return 5 * time.Minute
	}
	return time.Duration(c.LifetimeSeconds) * time.Second
}
