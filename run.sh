#!/bin/sh
# sh run.sh                          the release's sweep at full width, on what data_prep.py prepared in data/
# SEEDS="0 1 2 3 4" sh run.sh        the paper's five seeds
# sh run.sh quick                    small nets on convection that is simulated here (and on data/ocean, if there is
#                                    any): about 13 minutes on two CPU cores, no download
#
# Finished runs are skipped, killed ones go on. DATA_DIR, RESULTS and PYTHON override data, results and python3.
# The nets for rotation are not built yet; their lines of the release join with them.
cd "$(dirname "$0")" || exit 2
mode=${1:-full}
data=${DATA_DIR:-data}
results=${RESULTS:-results}
python=${PYTHON:-python3}
failed=0

if [ $# -gt 1 ] || { [ "$mode" != full ] && [ "$mode" != quick ]; }; then
    echo "error: usage: sh run.sh [quick], got: $*" >&2
    exit 2
fi

# run FLAGS: one run per seed
run() {
    for seed in ${SEEDS:-0}; do
        "$python" run_model.py "$@" --seed="$seed" --data_dir="$data" --results="$results"
        code=$?
        [ "$code" -gt 128 ] && exit "$code" # interrupted
        [ "$code" -ne 0 ] && failed=2
    done
}

if [ "$mode" = quick ]; then
    ocean=$data
    results=${RESULTS:-results}/quick
    data=$data/quick
    set -- --input_length=10 --output_length=2 --batch_size=8 --learning_rate=0.003 --decay_rate=0.75
    if [ ! -f "$data/rbc/meta.json" ]; then
        "$python" data_prep.py rbc --simulate small --stride 2 --tile 32 --splits 1050 105 105 --data_dir "$data" || exit
    fi
    for dataset in RBC Ocean; do
        unet_epochs=6 resnet_epochs=7
        if [ "$dataset" = Ocean ]; then
            data=$ocean unet_epochs=12 resnet_epochs=12
            [ -f "$data/ocean/meta.json" ] || continue
        fi
        for symmetry in None UM Mag; do
            run --dataset=$dataset --architecture=Unet --symmetry=$symmetry --width=0.25 --num_epoch=$unet_epochs "$@"
            run --dataset=$dataset --architecture=ResNet --symmetry=$symmetry --width=0.0625 --num_epoch=$resnet_epochs "$@"
        done
        # Dear for their width: two epochs and one, on five levels and three; 1 min 46 s for the U-Net on one core.
        run --dataset=$dataset --architecture=Unet --symmetry=Scale --width=0.125 --num_epoch=2 "$@"
        run --dataset=$dataset --architecture=ResNet --symmetry=Scale --width=0.03125 --num_scales=3 --num_epoch=1 "$@"
    done
else
    if [ -f "$data/rbc/meta.json" ]; then
        run --dataset=RBC --architecture=ResNet --symmetry=None --output_length=3 --learning_rate=0.001
        run --dataset=RBC --architecture=Unet --symmetry=None --output_length=4 --learning_rate=0.001
        run --dataset=RBC --architecture=ResNet --symmetry=UM --output_length=3 --learning_rate=0.001
        run --dataset=RBC --architecture=Unet --symmetry=UM --output_length=4 --learning_rate=0.001
        run --dataset=RBC --architecture=ResNet --symmetry=Mag --output_length=3 --learning_rate=0.005
        run --dataset=RBC --architecture=Unet --symmetry=Mag --output_length=4 --learning_rate=0.005
        run --dataset=RBC --architecture=ResNet --symmetry=Scale --output_length=3 --learning_rate=0.0001
        run --dataset=RBC --architecture=Unet --symmetry=Scale --output_length=4 --learning_rate=0.0001
    else
        echo "no $data/rbc: python data_prep.py rbc --raw rbc_data.pt, or --simulate medium, prepares it"
    fi
    if [ -f "$data/ocean/meta.json" ]; then
        run --dataset=Ocean --architecture=ResNet --symmetry=None --output_length=4 --learning_rate=0.001 --input_length=24 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=Unet --symmetry=None --output_length=5 --learning_rate=0.001 --input_length=21 --batch_size=16 --decay_rate=0.9
        run --dataset=Ocean --architecture=ResNet --symmetry=UM --output_length=5 --learning_rate=0.001 --input_length=24 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=Unet --symmetry=UM --output_length=5 --learning_rate=0.001 --input_length=24 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=ResNet --symmetry=Mag --output_length=5 --learning_rate=0.001 --input_length=21 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=Unet --symmetry=Mag --output_length=6 --learning_rate=0.001 --input_length=21 --batch_size=32 --decay_rate=0.9
        run --dataset=Ocean --architecture=ResNet --symmetry=Scale --output_length=3 --learning_rate=0.0001 --input_length=26 --batch_size=32 --decay_rate=0.9 --kernel_size=5
        run --dataset=Ocean --architecture=Unet --symmetry=Scale --output_length=3 --learning_rate=0.0001 --input_length=26 --batch_size=16 --decay_rate=0.9 --kernel_size=5
    else
        echo "no $data/ocean: python data_prep.py ocean --train FILES prepares it; --print_download says how to get files"
    fi
fi

"$python" -m evaluation.report "$results" || failed=2
exit "$failed"
