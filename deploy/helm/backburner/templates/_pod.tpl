{{- define "backburner.pod" -}}
metadata:
  labels:
    {{- include "backburner.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/config: {{ include "backburner.config" . | sha256sum }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "backburner.serviceAccount" . }}
  automountServiceAccountToken: false
  # Kubernetes would add variables such as BACKBURNER_PORT, which the gateway refuses as settings that it does not know.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "backburner.grace" . }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: backburner
      image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config, /etc/backburner/config.yaml{{ range .Values.extraArgs }}, {{ . | quote }}{{ end }}]
      env:
        {{- if eq .Values.store.kind "postgresql" }}
        - name: BACKBURNER_STORE__URL
          valueFrom:
            secretKeyRef:
              name: {{ .Values.store.postgresql.secretName }}
              key: {{ .Values.store.postgresql.secretKey }}
        {{- with .Values.store.postgresql.peerPort }}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: BACKBURNER_STORE__PEER_LISTEN
          value: {{ printf "0.0.0.0:%d" (int .) | quote }}
        - name: BACKBURNER_STORE__PEER_ADDRESS
          value: {{ printf "$(POD_IP):%d" (int .) | quote }}
        {{- end }}
        {{- end }}
        {{- if .Values.adminToken.secretName }}
        - name: ADMIN_TOKEN
          valueFrom:
            secretKeyRef:
              name: {{ .Values.adminToken.secretName }}
              key: {{ .Values.adminToken.secretKey }}
        {{- end }}
        - name: BACKBURNER_LOG__FORMAT
          value: json
        {{- with .Values.extraEnv }}{{ toYaml . | nindent 8 }}{{ end }}
      ports:
        - {name: http, containerPort: 9000}
        - {name: admin, containerPort: 9001}
        {{- if and (eq .Values.store.kind "postgresql") .Values.store.postgresql.peerPort }}
        - {name: peers, containerPort: {{ .Values.store.postgresql.peerPort }}}
        {{- end }}
      # A start checks the structure of the file: some seconds for each GiB.
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 2
        failureThreshold: 150
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      lifecycle:
        # Requests come for a moment after the endpoint was taken out.
        preStop: {exec: {command: [/opt/backburner/bin/python, -c, import time; time.sleep(5)]}}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources: {{ toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/backburner, readOnly: true}
        - {name: data, mountPath: /data}
        {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: config
      configMap: {name: {{ include "backburner.name" . }}}
    {{- if eq .Values.store.kind "postgresql" }}
    # Long texts of running responses lie in files without a name.
    - name: data
      emptyDir: {}
    {{- end }}
    {{- with .Values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- range $name := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
  {{- with index $.Values $name }}
  {{ $name }}: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}
