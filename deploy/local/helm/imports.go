//go:build tools

// Package helm pins helm. It is never compiled itself: the build tag keeps it out of every build, while `go mod tidy`
// still counts its imports. It is a module of its own because helm needs newer Kubernetes client libraries than the
// local control plane.
package helm

import _ "helm.sh/helm/v4/cmd/helm"
