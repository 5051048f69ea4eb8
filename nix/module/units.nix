# The broker as a service of systemd; etc/systemd/flux.service is the same for other distributions.
{
  config,
  lib,
  ...
}:
let
  cfg = config.services.flux;
  attributes = {
    "cron.directory" = "/etc/flux/system/cron.d";
    rundir = "/run/flux";
    statedir = "/var/lib/flux";
    local-uri = "local:///run/flux/local";
    log-stderr-level = 6;
    log-stderr-mode = "local";
    log-forward-level = -1;
    "broker.rc2_none" = 1;
    "broker.quorum" = 1;
    "broker.quorum-warn" = "none";
    "broker.cleanup-timeout" = 45;
    "broker.shutdown-timeout" = "5m";
    "broker.exit-norestart" = 42;
    "broker.sd-notify" = 1;
    "broker.sd-stop-timeout" = 90;
    "broker.module-nopanic" = 1;
    "content.dump" = "auto";
    "content.restore" = "auto";
  }
  // cfg.attributes;
  words = lib.mapAttrsToList (name: value: "-S${name}=${toString value}") attributes;
in
{
  config = lib.mkIf (cfg.enable && cfg.role != "tools") {
    systemd.slices.flux.description = "Flux and the jobs it runs";

    systemd.services.flux = {
      description = "Flux resource manager";
      documentation = [ "man:flux-start(1)" ];
      wantedBy = [ "multi-user.target" ];
      wants = [
        "network-online.target"
        "munge.service"
      ];
      after = [
        "network-online.target"
        "munge.service"
      ];
      # Jobs find the commands in PATH.
      path = [
        cfg.package
        "/run/current-system/sw"
      ];
      # A new configuration is taken over without a restart, which other nodes would notice.
      reloadTriggers = [ config.environment.etc."flux/system/conf.d/flux.toml".source ];

      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        User = "flux";
        Group = "flux";
        Slice = "flux.slice";
        RuntimeDirectory = "flux";
        RuntimeDirectoryMode = "0755";
        # Job shells outlive a broker that is restarted, and are found again by what is in here.
        RuntimeDirectoryPreserve = "restart";
        StateDirectory = "flux";
        StateDirectoryMode = "0700";
        SyslogIdentifier = "flux";
        # Lingering gives the user of the instance a systemd of its own, for jobs run under it.
        ExecStartPre = "+-${config.systemd.package}/bin/loginctl enable-linger flux";
        ExecStart = lib.escapeShellArgs (
          [
            "${cfg.package}/bin/flux"
            "broker"
            "--config-path=/etc/flux/system/conf.d"
          ]
          ++ words
        );
        ExecReload = "${cfg.package}/bin/flux config reload --follower-noop";
        Restart = "always";
        RestartSec = "5s";
        # Exit code 42: flux-shutdown(1) has ended the instance, or its start-up script fails.
        RestartPreventExitStatus = 42;
        SuccessExitStatus = 42;
        TimeoutStopSec = 90;
        # The broker alone is told to end: jobs go on, or are ended by it in good order.
        KillMode = "process";
        # The broker makes cgroups for what it runs.
        Delegate = true;
        # Fabrics pin memory.
        LimitMEMLOCK = "infinity";
      }
      # What jobs of the owner do not need either. Each of these implies NoNewPrivileges for a user other than root, and
      # those who run jobs of others need privileges.
      // lib.optionalAttrs (!cfg.multiUser.enable) {
        NoNewPrivileges = true;
        ProtectKernelModules = true;
        ProtectKernelLogs = true;
        ProtectClock = true;
        RestrictSUIDSGID = true;
        LockPersonality = true;
      };
    };
  };
}
