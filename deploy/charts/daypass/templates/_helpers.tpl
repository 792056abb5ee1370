{{/*
Completes .Values. Every template begins with it, and the first that does fills them in for all.
A key may be missing, or null: Helm deletes a default for which a values file has null, and `--reuse-values` brings the
values of an earlier chart. Then the default holds; but `roles`, `resources` and `topologySpreadConstraints` have none
here (readme.py), so that null removes what Helm removes.
*/}}
{{- define "daypass.values" -}}
{{- if not (hasKey .Values "complete") -}}
{{- $values := dict "key" "" "value" .Values "default" (.Files.Get "files/defaults/values.yaml" | fromYaml) -}}
{{- range $key, $value := (include "daypass.complete" $values | fromJson).value -}}
{{- $_ := set $.Values $key $value -}}
{{- end -}}
{{- $_ := set .Values "complete" true -}}
{{- end -}}
{{- end -}}

{{/*
{value: …} of one value, as JSON. Labels and annotations may be booleans, which become texts.
*/}}
{{- define "daypass.complete" -}}
{{- $value := .value -}}
{{- $default := .default -}}
{{- $asGiven := list "global" "resources" "podSecurityContext" "tolerations" "affinity" "topologySpreadConstraints"
  "networkPolicy" -}}
{{- if kindIs "invalid" $value -}}
  {{- $value = $default -}}
{{- else if has .key $asGiven -}}
{{- else if regexMatch "^(labels|.+Labels|annotations|.+Annotations|nodeSelector)$" .key -}}
  {{- $value = dict -}}
  {{- range $key, $item := .value -}}
    {{- if not (kindIs "invalid" $item) -}}
      {{- $_ := set $value $key (toString $item) -}}
    {{- end -}}
  {{- end -}}
{{- else if kindIs "map" $value -}}
  {{- $defaults := $default | default dict -}}
  {{- $value = dict -}}
  {{- range $key := concat (keys .value) (keys $defaults) | uniq -}}
    {{- $item := dict "value" (index $.value $key) "default" (index $defaults $key) -}}
    {{- /* An id of a role and the name of a claim are no keys: one may be called `labels`. */ -}}
    {{- $_ := set $item "key" (ternary "" $key (has $.key (list "roles" "requiredClaims"))) -}}
    {{- $_ := set $value $key (include "daypass.complete" $item | fromJson).value -}}
  {{- end -}}
{{- else if kindIs "slice" $value -}}
  {{- $value = list -}}
  {{- range .value -}}
    {{- $item := dict "key" "" "value" . "default" nil -}}
    {{- $value = append $value (include "daypass.complete" $item | fromJson).value -}}
  {{- end -}}
{{- end -}}
{{- dict "value" $value | toJson -}}
{{- end -}}

{{/*
Name of the objects in the release namespace and of Daypass's own cluster-wide ones. A Service's is the strictest: a
letter first, no dot. The chart's name may be an alias in an umbrella chart, with capitals and underscores.
*/}}
{{- define "daypass.fullname" -}}
{{- $chart := .Chart.Name | lower | replace "_" "-" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- $name = printf "%s-%s" $chart $name -}}
{{- else if not (contains $chart $name) -}}
{{- $name = printf "%s-%s" $name $chart -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- $name = printf "daypass-%s" $name -}}
{{- end -}}
{{- $name | trunc 63 | trimAll "-" -}}
{{- end -}}

{{/* That name with a suffix, (list . "-suffix"): at most 63 characters, as a Service or a label may have. */}}
{{- define "daypass.suffixed" -}}
{{- $suffix := last . -}}
{{- include "daypass.fullname" (first .) | trunc (int (sub 63 (len $suffix))) | trimAll "-" }}{{ $suffix -}}
{{- end -}}

{{- define "daypass.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "daypass.ownLabels" -}}
{{ include "daypass.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
{{- end -}}

{{/* Labels of an object. */}}
{{- define "daypass.labels" -}}
{{- include "daypass.labelsWith" (list .) -}}
{{- end -}}

{{/* Maps of labels in one: the first that has a label wins, even with "", which `merge` would replace. */}}
{{- define "daypass.mergedLabels" -}}
{{- $merged := dict -}}
{{- range reverse . -}}
{{- range $label, $value := . -}}
{{- $_ := set $merged $label $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $merged -}}
{{- end -}}

{{/* Labels of an object that has more of its own: (list . labels …). The chart's win, and `commonLabels` lose. */}}
{{- define "daypass.labelsWith" -}}
{{- $own := include "daypass.ownLabels" (first .) | fromYaml -}}
{{- include "daypass.mergedLabels" (concat (list $own) (rest .) (list (first .).Values.commonLabels)) -}}
{{- end -}}

{{/* Labels of Daypass's pods. No version: a new chart need not restart them. */}}
{{- define "daypass.podLabels" -}}
{{- $own := include "daypass.selectorLabels" . | fromYaml -}}
{{- include "daypass.mergedLabels" (list $own .Values.podLabels .Values.commonLabels) -}}
{{- end -}}

{{/* Daypass itself, as the subject of a binding. */}}
{{- define "daypass.subject" -}}
kind: ServiceAccount
name: {{ include "daypass.fullname" . | quote }}
namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{/* The same, as the subject of a FlowSchema. */}}
{{- define "daypass.flowSubject" -}}
kind: ServiceAccount
serviceAccount:
  name: {{ include "daypass.fullname" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{/*
The installed roles, by id: none that is null or not enabled; a role with onlyInNamespaces only once it has namespaces.
A logs-view whose onlyInNamespaces is missing or null keeps the default: a removed key must not widen it.
*/}}
{{- define "daypass.roles" -}}
{{- $roles := dict -}}
{{- range $id, $role := .Values.roles -}}
{{- if and $role (ne (toString $role.enabled) "false") -}}
{{- $must := has $id (list "logs-view" "pods-debug") -}}
{{- $only := kindIs "invalid" $role.onlyInNamespaces | ternary $must $role.onlyInNamespaces -}}
{{- if or $role.namespaces (not $only) -}}
{{- $_ := set $roles $id $role -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $roles -}}
{{- end -}}

{{/* One entry of `managers`, as the subject of a binding. */}}
{{- define "daypass.managerSubject" -}}
kind: {{ .kind | quote }}
name: {{ .name | quote }}
{{- if eq .kind "ServiceAccount" }}
namespace: {{ .namespace | quote }}
{{- else }}
apiGroup: rbac.authorization.k8s.io
{{- end }}
{{- end -}}

{{/* Which kubeconfigs members get. The program has the same default (src/serve/settings.rs). */}}
{{- define "daypass.kubeconfigMode" -}}
{{- .Values.kubeconfig.mode | default (ternary "direct" "gateway" (not (empty .Values.dataPlane.server))) -}}
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
{{- include "daypass.suffixed" (list . "-serving") -}}
{{- end -}}
{{- end -}}

{{/* Not empty if callers see a proxy's certificate and not Daypass's. */}}
{{- define "daypass.tlsAtProxy" -}}
{{- if or .Values.tls.atProxy.enabled .Values.httpRoute.enabled -}}
true
{{- end -}}
{{- end -}}

{{/* `oidc.issuers` as Daypass reads them: each CA and client secret is the file that the Deployment mounts. */}}
{{- define "daypass.issuers" -}}
{{- $issuers := list -}}
{{- range .Values.oidc.issuers -}}
{{- $issuer := omit . "caConfigMap" -}}
{{- if .caConfigMap -}}
{{- $_ := set $issuer "caFile" (printf "/etc/daypass/oidc-ca/%s/ca.crt" .name) -}}
{{- end -}}
{{- if (.console).clientSecret -}}
{{- $console := omit .console "clientSecret" -}}
{{- $file := printf "/etc/daypass/oidc-client/%s/secret" .name -}}
{{- $_ := set $issuer "console" (set $console "clientSecretFile" $file) -}}
{{- end -}}
{{- $issuers = append $issuers $issuer -}}
{{- end -}}
{{- toYaml $issuers -}}
{{- end -}}

{{/* The secrets of Daypass's clients, as sources of a projected volume; empty if none has one. */}}
{{- define "daypass.clientSecrets" -}}
{{- if has "oidc" .Values.server.authMethods -}}
{{- range .Values.oidc.issuers -}}
{{- $name := .name -}}
{{- with (.console).clientSecret }}
- secret:
    name: {{ .name | quote }}
    items:
      - key: {{ .key | quote }}
        path: {{ printf "%s/secret" $name | quote }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The issuers' own CAs, as sources of a projected volume; empty if none has one. */}}
{{- define "daypass.issuerCas" -}}
{{- if has "oidc" .Values.server.authMethods -}}
{{- range .Values.oidc.issuers -}}
{{- if .caConfigMap }}
- configMap:
    name: {{ .caConfigMap | quote }}
    items:
      - key: ca.crt
        path: {{ printf "%s/ca.crt" .name | quote }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Host that callers ask for, without the port. */}}
{{- define "daypass.publicHost" -}}
{{- (urlParse .Values.server.publicUrl).hostname -}}
{{- end -}}

{{/* Host of the gateway's own, without the port; empty if it has none. */}}
{{- define "daypass.gatewayHost" -}}
{{- if and .Values.gateway.publicUrl (ne (include "daypass.kubeconfigMode" .) "direct") -}}
{{- (urlParse .Values.gateway.publicUrl).hostname -}}
{{- end -}}
{{- end -}}

{{/* Hosts that callers ask for, without the port, as a YAML list. */}}
{{- define "daypass.publicHosts" -}}
{{- list (include "daypass.publicHost" .) (include "daypass.gatewayHost" .) | compact | toYaml -}}
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
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with index $.Values.podSecurityContext $key }}
{{ $key }}: {{ int64 . }}
{{- end }}
{{- end }}
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
name: {{ include "daypass.fullname" . | quote }}
port: {{ int64 .Values.service.port }}
weight: 1
{{- end -}}

{{/* Service that Prometheus scrapes. */}}
{{- define "daypass.metricsService" -}}
{{- include "daypass.suffixed" (list . "-metrics") -}}
{{- end -}}

{{/* Labels of what `helm test` creates; another name, so that the Service never sends a request to its pod. */}}
{{- define "daypass.testLabels" -}}
app.kubernetes.io/name: {{ printf "%s-test" (.Chart.Name | trunc 58 | trimAll "-_.") | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* The same, with those that every object has. */}}
{{- define "daypass.allTestLabels" -}}
{{- include "daypass.mergedLabels" (list (include "daypass.testLabels" . | fromYaml) .Values.commonLabels) -}}
{{- end -}}

{{/*
A number as Kubernetes stores it in a quota: 2000 is 2k. A GitOps controller would find another one changed for ever.
*/}}
{{- define "daypass.quantity" -}}
{{- $number := int64 . -}}
{{- $suffix := "" -}}
{{- range list "k" "M" "G" -}}
{{- if and $number (eq (mod $number 1000) 0) -}}
{{- $number = div $number 1000 -}}
{{- $suffix = . -}}
{{- end -}}
{{- end -}}
{{- printf "%d%s" $number $suffix -}}
{{- end -}}
