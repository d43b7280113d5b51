{{- define "backburner.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "backburner.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "backburner.labels" -}}
{{ include "backburner.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "backburner.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "backburner.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The settings, with those that the chart decides. */}}
{{- define "backburner.config" -}}
{{- $server := dict "host" "0.0.0.0" "port" 9000 "admin_host" "0.0.0.0" "admin_port" 9001 "drain_timeout_s" .Values.drainTimeoutSeconds -}}
{{- if .Values.adminToken.secretName }}{{ $_ := set $server "admin_token_env" "ADMIN_TOKEN" }}{{ end -}}
{{- $ours := dict "server" $server -}}
{{- if eq .Values.store.kind "sqlite" }}{{ $_ := set $ours "store" (dict "database" "/data/backburner.db") }}{{ end -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $ours) -}}
{{- end -}}

{{/* Drain, the last bytes of answers (3 s), the last log lines (2 s), the pause before SIGTERM (5 s), and some. */}}
{{- define "backburner.grace" -}}
{{- add (int .Values.drainTimeoutSeconds) 15 -}}
{{- end -}}
