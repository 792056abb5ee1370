{{/* Name of the objects in the release namespace and of Daypass's own cluster-wide ones. */}}
{{- define "daypass.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "daypass.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "daypass.labels" -}}
{{ include "daypass.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Daypass itself, as the subject of a binding. */}}
{{- define "daypass.subject" -}}
kind: ServiceAccount
name: {{ include "daypass.fullname" . }}
namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* The same, as the subject of a FlowSchema. */}}
{{- define "daypass.flowSubject" -}}
kind: ServiceAccount
serviceAccount:
  name: {{ include "daypass.fullname" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* The installed roles, by id: a role with onlyInNamespaces only once it has namespaces. */}}
{{- define "daypass.roles" -}}
{{- $roles := dict -}}
{{- range $id, $role := .Values.roles -}}
{{- if or $role.namespaces (not $role.onlyInNamespaces) -}}
{{- $_ := set $roles $id $role -}}
{{- end -}}
{{- end -}}
{{- toYaml $roles -}}
{{- end -}}

{{/* One entry of `managers`, as the subject of a binding. */}}
{{- define "daypass.managerSubject" -}}
kind: {{ .kind }}
name: {{ .name | quote }}
{{- if eq .kind "ServiceAccount" }}
namespace: {{ .namespace }}
{{- else }}
apiGroup: rbac.authorization.k8s.io
{{- end }}
{{- end -}}

{{/* https URL of the members in the REST API, for NOTES.txt. */}}
{{- define "daypass.membersUrl" -}}
{{ trimSuffix "/" .Values.server.publicUrl }}/processing/data-planes/{{ .Values.dataPlane.id }}/members
{{- end -}}

{{/* Daypass's user name in admission. */}}
{{- define "daypass.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "daypass.fullname" . }}
{{- end -}}

{{/* Names of the admission policies, and of their bindings. */}}
{{- define "daypass.walls" -}}
{{- range $path, $_ := .Files.Glob "files/walls/*.yaml" }}
- {{ trimSuffix ".yaml" (base $path) }}
{{- end }}
{{- end -}}

{{/* Secret of the given certificate; empty if Daypass makes its own. */}}
{{- define "daypass.tlsSecret" -}}
{{- if .Values.tls.secretName -}}
{{- .Values.tls.secretName -}}
{{- else if .Values.tls.certManager.enabled -}}
{{- include "daypass.fullname" . }}-serving
{{- end -}}
{{- end -}}

{{/* Not empty if callers see a proxy's certificate and not Daypass's. */}}
{{- define "daypass.tlsAtProxy" -}}
{{- if or .Values.tls.atProxy.enabled .Values.httpRoute.enabled -}}
true
{{- end -}}
{{- end -}}

{{/* Host that callers ask for, without the port. */}}
{{- define "daypass.publicHost" -}}
{{- (urlParse .Values.server.publicUrl).hostname -}}
{{- end -}}

{{/* Name of the Service inside the cluster. */}}
{{- define "daypass.serviceHost" -}}
{{- include "daypass.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Image of every pod. */}}
{{- define "daypass.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* securityContext of every pod, for the profile `restricted` of Pod Security. */}}
{{- define "daypass.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* securityContext of every container. */}}
{{- define "daypass.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* One of these roles for examples: projects-view if it is among them. */}}
{{- define "daypass.exampleRole" -}}
{{- if has "projects-view" . -}}
projects-view
{{- else if . -}}
{{- first . -}}
{{- end -}}
{{- end -}}

{{/* Gateways of a route, with the API server's defaults filled in, so that nothing differs from the live object. */}}
{{- define "daypass.parentRefs" -}}
{{- $refs := list -}}
{{- range . -}}
{{- $refs = append $refs (merge (dict) . (dict "group" "gateway.networking.k8s.io" "kind" "Gateway")) -}}
{{- end -}}
{{- toYaml $refs -}}
{{- end -}}

{{/* The Service, as the backend of a route. */}}
{{- define "daypass.backendRef" -}}
group: ""
kind: Service
name: {{ include "daypass.fullname" . }}
port: {{ .Values.service.port }}
weight: 1
{{- end -}}

{{/* Service that Prometheus scrapes. */}}
{{- define "daypass.metricsService" -}}
{{- include "daypass.fullname" . }}-metrics
{{- end -}}

{{/* Labels of what `helm test` creates; another name, so that the Service never sends a request to its pod. */}}
{{- define "daypass.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
