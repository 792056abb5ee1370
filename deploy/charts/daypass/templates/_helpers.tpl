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

{{/* Daypass itself, as admission sees it. */}}
{{- define "daypass.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "daypass.fullname" . }}
{{- end -}}

{{/* Head of a policy: (list $ name). */}}
{{- define "daypass.wallMetadata" -}}
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "daypass.labels" (index . 0) | nindent 4 }}
{{- end -}}

{{/* Puts a policy in force: (list $ name). */}}
{{- define "daypass.wallBinding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
{{ include "daypass.wallMetadata" . }}
spec:
  policyName: {{ index . 1 }}
  validationActions: [Deny]
{{- end -}}

{{/* CEL: the request comes from a member. Members are the service accounts of role namespaces. */}}
{{- define "daypass.byMember" -}}
has(request.userInfo.groups) && request.userInfo.groups.exists(g, g.startsWith('system:serviceaccounts:daypass-'))
{{- end -}}

{{/* CEL: the caller may manage roles (ClusterRole daypass-roles-manage). */}}
{{- define "daypass.mayManageRoles" -}}
authorizer.group('daypass.dev').resource('roles').check('manage').allowed()
{{- end -}}
